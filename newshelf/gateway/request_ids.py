"""An id for each request, that no other request has."""

import random
import secrets

__all__ = ["RequestIds"]

_BITS = 128


class RequestIds:
    """128 random bits each, as 32 hexadecimal digits.

    They are names, not secrets: the system is asked for randomness once, since asking costs
    more than the rest of making an id.
    """

    def __init__(self) -> None:
        self._random = random.Random(secrets.randbits(_BITS))  # noqa: S311 - no secret

    def next(self) -> str:
        """Another one."""
        return f"{self._random.getrandbits(_BITS):032x}"
