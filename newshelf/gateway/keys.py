"""API keys of the gateway: the key file, and each process's check of keys and rates.

A key is 256 random bits, so its plain SHA-256 is stored: nobody can guess a key and check it
against the file. Slow hashes protect guessable passwords, and would cost more than a request. The
file is private (mode 600) and contains no key.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from cachetools import LRUCache
from filelock import FileLock
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from newshelf.errors import Forbidden, RateLimited, SettingsError, Unauthorized
from newshelf.files import StrictModel, file_stamp, problems, read_model, write_private

_PREFIX, _PUBLIC_PREFIX = "nsk_", "nsp_"
_BYTES = 32
_OTHERS = 0o077

Scope = Literal["read", "feedback", "items", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "feedback")
"""Scopes of a key for a shop's front end, and of every key in a file without scopes."""
PUBLIC_SCOPES: tuple[Scope, ...] = ("feedback",)
_BY_PATH: dict[str, Scope] = {"units": "admin", **{scope: scope for scope in SCOPES}}
"""By the first part of a path after ``/v1/``."""


def scope_of(path: str) -> Scope:
    """Return the scope that a path needs: ``read``, unless it changes something."""
    _, version, group, *_ = (*path.split("/", 3), "", "")
    return _BY_PATH.get(group, "read") if version == "v1" else "read"


class ApiKey(StrictModel):
    """One key, as stored."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    rate_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Requests per second and gateway process."""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = DEFAULT_SCOPES
    public: bool = False
    """Anyone may know it: it sends feedback on answers, and each address has a rate."""

    @model_validator(mode="after")
    def _check_scopes(self) -> Self:
        if self.public and self.scopes != PUBLIC_SCOPES:
            raise ValueError("a public key has the scope feedback, and no other")
        return self

    def expired(self, now: datetime) -> bool:
        """Return whether it is expired at ``now`` (with a time zone)."""
        return self.expires is not None and self.expires <= now


class _File(StrictModel):
    keys: tuple[ApiKey, ...] = ()


@dataclass(eq=False)
class KeyFile:
    """The file of keys; raises ``SettingsError`` if it is damaged or readable by other users."""

    path: Path

    def read(self) -> tuple[ApiKey, ...]:
        """Return all keys, also expired ones; none if there is no file."""
        try:
            if self.path.stat().st_mode & _OTHERS:
                raise SettingsError(f"{self.path} can be read by other users: chmod 600 it")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise SettingsError(f"cannot read the keys {self.path}: {error.strerror}") from error
        return read_model(self.path, _File, "file of keys").keys

    def add(
        self,
        name: str,
        *,
        now: datetime,
        expires: datetime | None,
        rate_per_s: float,
        scopes: Sequence[str] = DEFAULT_SCOPES,
        public: bool = False,
    ) -> str:
        """Create a key, store its hash, and return the key itself, which is not stored."""
        secret = (_PUBLIC_PREFIX if public else _PREFIX) + secrets.token_urlsafe(_BYTES)
        if expires is not None and expires <= now:
            raise SettingsError(f"the key {name!r} would be expired already at {expires}")
        try:
            key = ApiKey(
                name=name,
                sha256=digest_of(secret),
                created=now,
                expires=expires,
                rate_per_s=rate_per_s,
                scopes=scopes,
                public=public,
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
        """Remove a key; gateways refuse it within two seconds."""
        with self._locked():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                names = ", ".join(key.name for key in keys) or "none at all"
                raise SettingsError(f"there is no key called {name!r}; there are: {names}")
            self._write(left)

    def _locked(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        write_private(self.path, _File(keys=keys).model_dump_json(indent=2) + "\n")


def digest_of(secret: str) -> str:
    """Return the SHA-256 by which a key is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenBucket:
    """A token bucket that begins with ``burst`` tokens, by a monotonic clock."""

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float, tokens: int = 1) -> float:
        """Take tokens if there is one, even below zero, or return the seconds until then."""
        came = (now_s - self._at_s) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + came)
        self._at_s = now_s
        if self._tokens >= 1:
            self._tokens -= tokens
            return 0.0
        return (1 - self._tokens) / self._rate_per_s


_LOG = logging.getLogger(__name__)
_BEARER = b"bearer "
_MOST_BUCKETS = 10_000


class KeyAccess:
    """Checks the key and the rate of each request; each process allows the full rate."""

    def __init__(self, file: KeyFile, public_rate_per_s: float = 10.0) -> None:
        self._file = file
        self._public_rate_per_s = public_rate_per_s
        self._stamp = file_stamp(file.path)
        self._keys = {key.sha256: key for key in file.read()}
        self._buckets: LRUCache[tuple[str, str], TokenBucket] = LRUCache(_MOST_BUCKETS)
        """By the key's hash or the address, and ``requests``, ``events`` or ``items``."""
        self._used: dict[str, datetime] = {}

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        stamp = file_stamp(self._file.path)
        if stamp == self._stamp:
            return
        try:
            keys = self._file.read()
        except SettingsError as error:
            _LOG.error("the keys stay as they were: %s", error.message)
            return
        self._stamp = stamp
        self._keys = {key.sha256: key for key in keys}

    def admit(self, authorization: bytes | None, path: str, address: str) -> ApiKey:
        """Admit one request of a client by its authorization header; return the key.

        Raises ``Unauthorized`` without a valid key, ``Forbidden`` without the path's scope, and
        ``RateLimited``.
        """
        if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
            raise Unauthorized("send a key in the header Authorization: Bearer KEY")
        secret = authorization[len(_BEARER) :].strip().decode("latin-1")
        return self.admit_digest(digest_of(secret), scope_of(path), address)

    def admit_digest(self, sha256: str, scope: Scope, address: str) -> ApiKey:
        """Admit one request with a scope by the hash of its key; see ``admit``."""
        # The look-up's time may reveal a digest, from which no key follows.
        key, now = self._keys.get(sha256), datetime.now(UTC)
        if key is None:
            raise Unauthorized("this key is not known; ./run keys list shows those that are")
        if key.expired(now):
            raise Unauthorized(f"the key {key.name!r} expired at {key.expires:%Y-%m-%d %H:%M} UTC")
        if scope not in key.scopes:
            raise Forbidden(
                f"the key {key.name!r} does not have the scope {scope!r}, which this needs; "
                f"./run keys add NAME --scope {scope} makes one that has"
            )
        self.count(key, address, "requests", 1)
        self._used[key.name] = now
        return key

    def used(self) -> list[tuple[ApiKey, datetime | None]]:
        """Return all keys, each with the time of its last request to this process."""
        return [(key, self._used.get(key.name)) for key in self._keys.values()]

    def visit(self, address: str, rate_per_s: float, what: str = "pages") -> None:
        """Count a request without a key at the rate of its address."""
        self._take((address, what), 1, rate_per_s, "a visitor")

    def count(self, key: ApiKey, address: str, what: str, number: int) -> None:
        """Count requests, events or items at the rates of the key and of a public one's client.

        A batch is admitted whole. A client that sends too much takes nothing from others.
        """
        if key.public:
            who = f"a client with the key {key.name!r}"
            self._take((address, what), number, self._public_rate_per_s, who)
        self._take((key.sha256, what), number, key.rate_per_s, f"the key {key.name!r}")

    def _take(self, place: tuple[str, str], number: int, rate_per_s: float, who: str) -> None:
        now_s = time.monotonic()
        new = TokenBucket(rate_per_s, max(1.0, rate_per_s), now_s)
        bucket = self._buckets.setdefault(place, new)
        wait_s = bucket.take(now_s, number)
        if wait_s:
            error = RateLimited(
                f"{who} may send {rate_per_s:g} {place[1]} each second; try again in {wait_s:.2f} s"
            )
            error.retry_after_s = wait_s
            raise error
