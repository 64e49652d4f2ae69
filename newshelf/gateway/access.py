"""Who may call, and how often: the key file as one process sees it."""

import logging
import time
from datetime import UTC, datetime

from newshelf.errors import RateLimited, SettingsError, Unauthorized
from newshelf.gateway.bucket import TokenBucket
from newshelf.gateway.keys import ApiKey, KeyFile, KeyRing

__all__ = ["Access"]

_LOG = logging.getLogger(__name__)
_BEARER = b"bearer "


class Access:
    """Checks the key of each request, and counts it.

    The rate is of this process: of several behind one port, each allows it.
    """

    def __init__(self, file: KeyFile) -> None:
        """Read the keys.

        Raises:
            SettingsError: they cannot be read.
        """
        self._file = file
        self._stamp = file.stamp()
        self._ring = KeyRing(file.read())
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        """By a key's hash, and what is counted."""

    def refresh(self) -> None:
        """Read the file again if it has changed: keys that were revoked stop to work."""
        stamp = self._file.stamp()
        if stamp == self._stamp:
            return
        try:
            keys = self._file.read()
        except SettingsError as error:
            _LOG.error("the keys stay as they were: %s", error.message)
            return
        self._stamp = stamp
        self._ring = KeyRing(keys)
        known = {key.sha256 for key in keys}
        self._buckets = {what: one for what, one in self._buckets.items() if what[0] in known}

    def admit(self, authorization: bytes | None) -> str:
        """Let one request pass.

        Args:
            authorization: the header.

        Returns:
            The key's name.

        Raises:
            Unauthorized: no key, or none that is valid now.
            RateLimited: too many requests.
        """
        if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
            raise Unauthorized("send a key in the header Authorization: Bearer KEY")
        key = self._ring.find(authorization[len(_BEARER) :].strip().decode("latin-1"))
        if key is None:
            raise Unauthorized("this key is not known; ./run keys list shows those that are")
        if key.expired(datetime.now(UTC)):
            raise Unauthorized(f"the key {key.name!r} expired at {key.expires:%Y-%m-%d %H:%M} UTC")
        self._count(key, "requests", 1)
        return key.name

    def count_events(self, name: str | None, number: int) -> None:
        """Count events of feedback, apart from requests: at the key's rate, too.

        Raises:
            RateLimited: too many events; a batch passes whole, and the next ones wait for it.
        """
        key = self._ring.named(name)
        if key is not None:
            self._count(key, "events", number)

    def _count(self, key: ApiKey, what: str, number: int) -> None:
        now_s = time.monotonic()
        bucket = self._buckets.get((key.sha256, what))
        if bucket is None:
            bucket = TokenBucket(key.rate_per_s, max(1.0, key.rate_per_s), now_s)
            self._buckets[key.sha256, what] = bucket
        wait_s = bucket.take(now_s, number)
        if wait_s:
            error = RateLimited(
                f"the key {key.name!r} may send {key.rate_per_s:g} {what} each second; "
                f"try again in {wait_s:.2f} s"
            )
            error.retry_after_s = wait_s
            raise error
