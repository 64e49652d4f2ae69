"""Cursors of feeds: signed texts that name the answers of the earlier pages.

A next page leaves out what those answers showed, however the shelf has changed. The event store
holds that, so a cursor has 16 bytes per answer; the products themselves may take 200 bytes each.
In base64::

    issued (4, seconds) | digest of the unit (8) | of the request (8) | request ids (16 each) |
    HMAC-SHA256 of all that (16)
"""

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

import orjson

from newshelf.errors import InvalidField, UnknownRequest
from newshelf.gateway.record import Record
from newshelf.gateway.schemas import RecommendQuery

_TIME, _DIGEST, _ID, _SIGNATURE = 4, 8, 16, 16
_IDS_FROM = _TIME + 2 * _DIGEST
_MAX_PAGES = 50
"""A cursor has at most 1.2 kB."""


@dataclass(eq=False)
class Cursors:
    """Issues cursors of ``lifetime_s`` seconds, and reads those of every process with the key."""

    key: bytes
    lifetime_s: float
    record: Record

    async def page(self, query: RecommendQuery) -> tuple[RecommendQuery, bytes]:
        """Return a query without the products of the earlier pages, and their request ids.

        Raises ``InvalidField`` if its cursor is not of this gateway, has expired, or is of another
        unit, placement, kind, filters or search.
        """
        if not query.cursor:
            return query, b""
        earlier = self._read(query, query.cursor)
        ids = [earlier[at : at + _ID].hex() for at in range(0, len(earlier), _ID)]
        try:
            shown = await self.record.shown(ids)
        except UnknownRequest as error:
            raise _refused("its earlier answers are not in the event store any more") from error
        return query.replaced(exclude=[*query.request.exclude, *shown]), earlier

    def following(self, query: RecommendQuery, earlier: bytes, request_id: str) -> str | None:
        """Return the cursor of the next page; None without a feed, and after the last page."""
        if query.cursor is None:
            return None
        ids = earlier + bytes.fromhex(request_id)
        if len(ids) > _MAX_PAGES * _ID:
            return None
        signed = int(time.time()).to_bytes(_TIME) + _digests(query) + ids
        return urlsafe_b64encode(signed + self._signature(signed)).rstrip(b"=").decode()

    def _read(self, query: RecommendQuery, cursor: str) -> bytes:
        try:
            found = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except ValueError:
            found = b""
        signed, signature = found[:-_SIGNATURE], found[-_SIGNATURE:]
        if not hmac.compare_digest(signature, self._signature(signed)):
            raise _refused("it was not issued by this gateway")
        unit, asked = _digests(query)[:_DIGEST], _digests(query)[_DIGEST:]
        if signed[_TIME : _TIME + _DIGEST] != unit:
            raise _refused("it is another unit's")
        if signed[_TIME + _DIGEST : _IDS_FROM] != asked:
            raise _refused("it is of another placement, kind, filters or search")
        if time.time() - int.from_bytes(signed[:_TIME]) > self.lifetime_s:
            raise _refused(f"it is older than {self.lifetime_s:g} s (gateway.cursor_s)")
        return signed[_IDS_FROM:]

    def _signature(self, signed: bytes) -> bytes:
        return hmac.digest(self.key, signed, hashlib.sha256)[:_SIGNATURE]


def _refused(reason: str) -> InvalidField:
    return InvalidField(f"{reason}; start again with an empty cursor", field="cursor")


def _digests(query: RecommendQuery) -> bytes:
    request = query.request
    filters = request.filters.model_dump(exclude_none=True)
    search = request.search and [request.search.text, request.search.image]
    asked = orjson.dumps([request.placement, request.kind, filters, search])
    parts = (query.unit.encode(), asked)
    return b"".join(hashlib.sha256(part).digest()[:_DIGEST] for part in parts)
