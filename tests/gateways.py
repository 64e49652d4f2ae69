"""A gateway that listens on a real port, before a fake TorchServe and a real event store."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import uvicorn

from newshelf.config import GatewaySettings
from newshelf.gateway import record
from newshelf.gateway.app import make_worker
from newshelf.gateway.fallback import write_popular
from newshelf.gateway.keys import SCOPES, KeyFile
from newshelf.gateway.main import uvicorn_options
from newshelf.server.program import GatewayPlan
from newshelf.store.records import TrafficSplit
from newshelf.store.store import EventStore
from tests.fake_predictors import FAKE_IDS

CATEGORIES = ("Jewellery > Rings", "Jewellery > Pendants", "Home > Lighting")


def write_popular_products(path: Path) -> None:
    """Of the fake recommender's items: the later, the more popular; each third a category."""
    count = len(FAKE_IDS)
    columns: dict[str, list[Any]] = {
        "id": list(FAKE_IDS),
        "title": [f"title {name}" for name in FAKE_IDS],
        "product_type": [CATEGORIES[row % 3] for row in range(count)],
        "brand": ["Acme" if row % 2 else None for row in range(count)],
        "color": ["Green/white" if row % 5 == 0 else "red" for row in range(count)],
        "material": [None] * count,
        "size": [None] * count,
        "price": [float(row) if row else None for row in range(count)],
        "availability": ["out_of_stock" if row == count - 1 else None for row in range(count)],
        "created_at": [1_700_000_000 + row if row % 2 else None for row in range(count)],
        "popularity": [float(row) for row in range(count)],
    }
    write_popular(columns, path)


@dataclass
class Gateway:
    """A running one."""

    url: str
    http: httpx.Client
    """With a valid key."""
    keys: KeyFile
    store: EventStore
    plan: GatewayPlan

    def recommend(self, unit: str = "u1", **body: Any) -> httpx.Response:
        return self.http.post("/v1/recommend", json={"unit": unit, "k": 3, **body})

    def exposures(self) -> list[Any]:
        """All that are in the store, oldest first."""
        return list(self.store.exposures())


StartGateway = Callable[..., Gateway]
_PATIENT = {"log_requests": False, "timeout_ms": 5000}
"""A machine may stand still for a second or two: only tests of a deadline have a short one."""


@contextmanager
def starting(plan: GatewayPlan) -> Iterator[StartGateway]:
    """Start gateways, with these settings and traffic splits, that end with the ``with`` block."""
    with ExitStack() as stack:

        def start(
            splits: tuple[TrafficSplit, ...] = (),
            files: Mapping[str, Path] = {},
            controller: str | None = None,
            **settings: Any,
        ) -> Gateway:
            made = GatewaySettings.model_validate({**_PATIENT, **settings})
            placements = Path(made.placements) if made.placements else None
            update = {"settings": made, "placements": placements, **files}
            changed = plan.model_copy(update={**update, "controller": controller})
            keys = KeyFile(plan.api_keys)
            now = datetime.now(UTC)
            secret = keys.add("tests", now=now, expires=None, rate_per_s=10_000, scopes=SCOPES)
            store = stack.enter_context(EventStore.open(plan.store_url))
            for split in splits:
                store.rollouts.create(split.rollout, "{}", "{}", split)
            # A disk of a busy machine may stand still for seconds, after which answers are refused.
            wait_s = 30.0 if changed.spool is None else record._WAIT_S
            with patch.object(record, "_WAIT_S", wait_s):
                url = stack.enter_context(_serving(changed))
            http = stack.enter_context(
                httpx.Client(
                    base_url=url,
                    headers={"Authorization": f"Bearer {secret}"},
                    timeout=30,
                    trust_env=False,
                    # It is plain HTTP, and to load certificates takes longer than many a test.
                    verify=False,  # noqa: S501
                )
            )
            return Gateway(url, http, keys, store, changed)

        yield start


async def _nap(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


# Uvicorn looks each 0.1 s whether it is to end, and then waits 0.1 s more, longer than most tests.
uvicorn.server.asyncio = SimpleNamespace(**{**vars(asyncio), "sleep": _nap})  # type: ignore[assignment]


class _serving:  # noqa: N801 - a context
    def __init__(self, plan: GatewayPlan) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(make_worker(plan), **uvicorn_options(plan.settings))
        )
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the gateway did not start"
            threading.Event().wait(0.01)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
