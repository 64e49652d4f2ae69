"""After a load through a gateway: whether its store has what was acknowledged; then cleaning up."""

import logging
import time
from collections.abc import Mapping
from urllib.parse import quote

import httpx

from loadtest.record import Acknowledged
from loadtest.shoppers import Kept
from newshelf.errors import ServerError

# It logs every request at INFO, which Locust prints.
logging.getLogger("httpx").setLevel(logging.WARNING)
_TIMEOUT_S = 60.0
_WAIT_S = 60.0
"""Time that the gateway has to come back, and to replay its spool."""
_PAUSE_S = 0.5
_AGAIN = {429, 500, 502, 503, 504}


class GatewayStore:
    """The event store behind a gateway's API; the key needs the scopes ``items`` and ``admin``."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._http = httpx.Client(
            base_url=url, headers=dict(headers), timeout=_TIMEOUT_S, trust_env=False
        )

    def check_access(self, name: str) -> None:
        """Raise ``ServerError`` if a unit of this name cannot be looked up."""
        self._call("GET", f"/v1/units/{name}")

    def find(self, kept: Kept) -> Acknowledged:
        """Look up everything that was acknowledged, and delete the products of the load."""
        end_s = time.monotonic() + _WAIT_S
        while "spooled" in self._call("GET", "/readyz").json() and time.monotonic() < end_s:
            time.sleep(_PAUSE_S)
        lost: list[str] = []
        for unit in sorted({*kept.answers, *kept.events}):
            found = self._call("GET", f"/v1/units/{quote(unit, safe='')}").json()
            answers = {one["request_id"] for one in found["exposures"]}
            events = {one["event_id"] for one in found["feedback"]}
            lost += [one for one in kept.answers.get(unit, ()) if one not in answers]
            lost += [one for one in kept.events.get(unit, ()) if one not in events]
        for item in kept.items:
            self._call("DELETE", f"/v1/items/{quote(item, safe='')}", missing=True)
        return Acknowledged(
            answers=sum(map(len, kept.answers.values())),
            events=sum(map(len, kept.events.values())),
            lost=tuple(lost),
        )

    def _call(self, method: str, path: str, *, missing: bool = False) -> httpx.Response:
        """Call the gateway; wait for one that is away or at its limit."""
        end_s = time.monotonic() + _WAIT_S
        while True:
            try:
                response = self._http.request(method, path)
            except httpx.TransportError as error:
                reason = repr(error)
            else:
                absent = missing and response.status_code == httpx.codes.NOT_FOUND
                if response.is_success or absent:
                    return response
                reason = f"{response.status_code}: {response.text.strip()[:300]}"
                if response.status_code not in _AGAIN:
                    end_s = 0.0
            if time.monotonic() >= end_s:
                raise ServerError(
                    f"{self._url} refuses {method} {path}, with which the store is checked "
                    f"({reason})"
                )
            time.sleep(_PAUSE_S)
