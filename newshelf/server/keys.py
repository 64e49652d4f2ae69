"""The key file that TorchServe writes into its working directory (mode 600)."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from newshelf.errors import ServerError
from newshelf.files import read_json

__all__ = ["KEY_FILE", "Key", "Keys", "read_keys"]

KEY_FILE = "key_file.json"
_OTHERS = 0o077


@dataclass(frozen=True)
class Key:
    """A bearer token."""

    token: str
    expires: datetime | None
    """With a time zone; None for the API key, which does not expire."""

    def expired(self, now: datetime) -> bool:
        """Whether TorchServe refuses it at ``now`` (with a time zone)."""
        return self.expires is not None and self.expires <= now

    def header(self) -> dict[str, str]:
        """The HTTP header that carries it."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True)
class Keys:
    """One key per purpose."""

    inference: Key
    management: Key
    api: Key
    """Asks for new inference and management keys."""


def read_keys(path: Path) -> Keys:
    """Parse the key file.

    Raises:
        ServerError: it is missing, not as expected, or open to other users.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise ServerError(f"{path} can be read by other users; restart the server")
        table = read_json(path)
        return Keys(
            inference=_key(table["inference"]),
            management=_key(table["management"]),
            api=_key(table["API"]),
        )
    except OSError as error:
        raise ServerError(
            f"cannot read the key file {path}: {error.strerror}; is the server running "
            "(./run status)?"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{path} is not a key file of TorchServe 0.12: {error!r}") from error


def _key(entry: dict[str, Any]) -> Key:
    expires = entry.get("expiration time")
    # Java writes nanoseconds and Z; datetime reads both, keeping microseconds.
    return Key(entry["key"], None if expires is None else datetime.fromisoformat(expires))
