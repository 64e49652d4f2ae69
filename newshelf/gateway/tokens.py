"""TorchServe's inference token: read from its key file, renewed before it expires.

A renewed token ends the old one, and several processes share the file; so whoever is
refused reads the file again first, and asks for a new token only when the file's own has
expired.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from newshelf.errors import ServerError, Unavailable
from newshelf.gateway.deadline import Deadline
from newshelf.gateway.http1 import Reply
from newshelf.gateway.upstream import Upstream
from newshelf.server.keys import Key, Keys, read_keys

__all__ = ["Tokens", "refused"]

_EARLY = timedelta(minutes=1)
_OK = 200


def refused(reply: Reply) -> bool:
    """Whether TorchServe refused the token, and so did nothing."""
    return 400 <= reply.status < 404 and b"InvalidKeyException" in reply.body  # noqa: PLR2004


class Tokens:
    """The header that predictions need.

    Args:
        key_file: None where TorchServe asks for no token.
        management: where new tokens are asked for; None renews nothing, and reads what
            somebody else wrote.
    """

    def __init__(self, key_file: Path | None, management: Upstream | None) -> None:
        self._key_file = key_file
        self._management = management
        self._key: Key | None = None
        self._renewing = asyncio.Lock()
        self.header = ""
        """A whole header line, or nothing."""

    def read(self) -> None:
        """Take the token of the key file.

        Raises:
            ServerError: it cannot be read.
        """
        if self._key_file is not None:
            self._take(read_keys(self._key_file))

    async def refresh(self, deadline: Deadline) -> None:
        """After a refusal, or when the time has come: read the file, and renew what expired.

        Raises:
            Unavailable: there is no new token.
        """
        if self._key_file is None:
            raise Unavailable("TorchServe asks for a token, and no key file is named")
        async with self._renewing:
            try:
                keys = read_keys(self._key_file)
                if self._management is not None and _expired(keys.inference):
                    line = _line(keys.api)
                    reply = await self._management.get("/token?type=inference", line, deadline)
                    if reply.status != _OK:
                        raise Unavailable("TorchServe's token expired and was not renewed")
                    # The new one is in the file; the answer has no body.
                    keys = read_keys(self._key_file)
            except ServerError as error:
                raise Unavailable(error.message) from error
            self._take(keys)

    def stale(self) -> bool:
        """Whether the token expires so soon that it should be renewed."""
        return self._key is not None and _expired(self._key)

    def _take(self, keys: Keys) -> None:
        self._key = keys.inference
        self.header = _line(keys.inference)


def _expired(key: Key) -> bool:
    return key.expired(datetime.now(UTC) + _EARLY)


def _line(key: Key) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in key.header().items())
