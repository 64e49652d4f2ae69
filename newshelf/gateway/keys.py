"""API keys: who may call the gateway, until when, and how often.

A key is 256 random bits, so its plain SHA-256 is kept: nobody can guess one and check it
against the file, which is what slow hashes defend words against, and they would cost more
than the request. The file is private (mode 600) and holds no key.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from newshelf.errors import SettingsError
from newshelf.files import write_private
from newshelf.validated import problems, read_model

__all__ = ["ApiKey", "KeyFile", "KeyRing"]

_PREFIX = "nsk_"
_BYTES = 32
_OTHERS = 0o077


class ApiKey(BaseModel):
    """One key, as it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    rate_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Requests each second, of each process of the gateway."""

    def expired(self, now: datetime) -> bool:
        """Whether it is refused at ``now`` (with a time zone)."""
        return self.expires is not None and self.expires <= now


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...] = ()


class KeyRing:
    """Finds the entry of a key that a request carries."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = {key.sha256: key for key in keys}
        self._named = {key.name: key for key in keys}

    def find(self, secret: str) -> ApiKey | None:
        """The entry of ``secret``, expired or not; None when there is none."""
        digest = _digest(secret)
        # The look-up's time tells of a digest, from which no key follows; the comparison
        # tells nothing at all.
        found = self._keys.get(digest)
        if found is not None and hmac.compare_digest(found.sha256, digest):
            return found
        return None

    def named(self, name: str | None) -> ApiKey | None:
        """The key of this name, if there is one."""
        return self._named.get(name) if name is not None else None


class KeyFile:
    """The file of the keys; made when the first one is added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[ApiKey, ...]:
        """All keys, expired ones too; none when there is no file.

        Raises:
            SettingsError: it is damaged, or open to other users.
        """
        try:
            if self.path.stat().st_mode & _OTHERS:
                raise SettingsError(f"{self.path} can be read by other users: chmod 600 it")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise SettingsError(f"cannot read the keys {self.path}: {error.strerror}") from error
        return read_model(self.path, _File, "file of keys").keys

    def stamp(self) -> tuple[int, int]:
        """Changes whenever the file does."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)

    def add(self, name: str, *, now: datetime, expires: datetime | None, rate_per_s: float) -> str:
        """Make a key, and keep its hash.

        Returns:
            The key itself, which is told only now.

        Raises:
            SettingsError: there is a key of this name, or a value is not allowed.
        """
        secret = _PREFIX + secrets.token_urlsafe(_BYTES)
        if expires is not None and expires <= now:
            raise SettingsError(f"the key {name!r} would be expired already at {expires}")
        try:
            key = ApiKey(
                name=name,
                sha256=_digest(secret),
                created=now,
                expires=expires,
                rate_per_s=rate_per_s,
            )
        except ValidationError as error:
            raise SettingsError(f"key {problems(error)}") from error
        with self._locked():
            keys = self.read()
            if any(other.name == name for other in keys):
                raise SettingsError(
                    f"there is a key called {name!r} already; ./run keys revoke {name} ends it"
                )
            self._write((*keys, key))
        return secret

    def revoke(self, name: str) -> None:
        """Forget a key; gateways refuse it within two seconds.

        Raises:
            SettingsError: there is no key of this name.
        """
        with self._locked():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                names = ", ".join(key.name for key in keys) or "none at all"
                raise SettingsError(f"there is no key called {name!r}; there are: {names}")
            self._write(left)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            yield

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        write_private(self.path, _File(keys=keys).model_dump_json(indent=2) + "\n")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
