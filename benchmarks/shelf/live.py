"""The live shelf of a running server: delay and loss of changes, latency with a delta, imports.

Everything that it adds is deleted at the end; killed processes are replaced by those that
supervise them.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import psutil

from benchmarks.processes import in_threads
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.shelf.command import ShelfContext
from newshelf.errors import ServerError
from newshelf.files import read_model
from newshelf.pipeline.workspace import only_server
from newshelf.server.client import Client
from newshelf.server.process import members
from newshelf.server.program import ShelfPlan
from newshelf.server.state import ServerState
from newshelf.shelf.model import ShelfModel
from newshelf.store.items import ItemColumns, ItemRepository, ItemWrite
from newshelf.store.store import EventStore

_PER_S, _CHANGES_PER_S = 50.0, 20.0
_KILLS = 50
_DELTA = 5_000
_ROUNDS, _SECONDS, _IMPORTED = 100, 30.0, 20_000
_ENCODED_ALONE = 4_096
_POLL_S = 0.005
_PATIENCE_S = 120.0
_WORDS = ("jade", "gold", "linen", "ring", "shirt", "lamp", "green", "red", "small", "long")

_Process = TypeVar("_Process")


@dataclass
class Shop:
    """A running server, its store, and a client of each."""

    state: ServerState
    store: EventStore
    client: Client
    plan: ShelfPlan
    key: str
    picture: bytes
    made: list[str] = field(default_factory=list)

    @property
    def items(self) -> ItemRepository:
        """Return the products."""
        return self.store.items

    def product(self, name: str, **fields: object) -> ItemColumns:
        """Return a new product, which is deleted at the end."""
        self.made.append(name)
        words = [_WORDS[at] for at in _chance(len(self.made)).choice(len(_WORDS), 4)]
        return ItemColumns.model_validate({"id": name, "title": " ".join(words), **fields})

    def shows(self, item_id: str, price: float | None = None) -> bool:
        """Return whether the worker that answers knows the product, at this price."""
        filters = {} if price is None else {"price": {"min": price, "max": price}}
        with suppress(httpx.TransportError):
            body = {"candidates": [item_id], "k": 1, "filters": filters}
            response = self.client.predict("recommender", json=body)
            if response.status_code == httpx.codes.OK:
                return any(item["id"] == item_id for item in response.json()["items"])
        return False

    def delay_s(self, item_id: str, price: float | None = None) -> float:
        """Return the time from now, when a change is committed, until a worker answers with it."""
        start_s = time.monotonic()
        while not self.shows(item_id, price):
            if time.monotonic() - start_s > _PATIENCE_S:
                raise TimeoutError("a change did not become visible")
            time.sleep(_POLL_S)
        return time.monotonic() - start_s


_TEXT, _PRICE, _PICTURE = (
    f"acknowledged → answered, {what}: p99, s" for what in ("text", "price", "picture")
)
_MEANWHILE = "/v1/recommend meanwhile: p99, ms"
_DELTA_TIMES = "p99 of /v1/recommend with a delta, as a multiple of that without"
_LOST = f"acknowledged changes lost, {_KILLS} kill -9"
_IMPORT = "import, as a share of the encoder's in-process rate"


def run(context: ShelfContext) -> TaskResult:
    """Measure the only running server; a round is a repetition of all."""
    values: dict[str, list[float]] = {}
    notes: list[str] = []
    with _shop(None) as shop:
        for _ in range(context.rounds):
            found, note = _round(shop)
            notes.append(note)
            for name, value in found.items():
                values.setdefault(name, []).append(value)
    return TaskResult(
        task="live",
        title="Changes of a running server",
        protocol=(
            f"A served catalogue under {_PER_S:.0f} recommendations/s. A change is a commit to the "
            "store; it has arrived when a worker answers with it, asked every 5 ms: "
            f"{_ROUNDS} new texts, prices and pictures, one after the other. Latencies count from "
            f"when a request was due, {_SECONDS:.0f} s each. The delta has {_DELTA:,} products and "
            f"{_CHANGES_PER_S:.0f} changes/s by another process. One of gateway, shelf and worker "
            f"is killed {_KILLS} times, between three changes each. The import has "
            f"{_IMPORTED:,} texts of four words, without the load."
        ),
        rows=[Row(name, "Newshelf", found, robust=True) for name, found in values.items()],
        goals=[
            Goal(_TEXT, 1),
            Goal(_PRICE, 1),
            Goal(_PICTURE, 2),
            Goal(_DELTA_TIMES, 1.1),
            Goal(_LOST, 0),
            Goal(_IMPORT, 0.9),
        ],
        notes=notes,
        percent=False,
        lower_is_better=[_TEXT, _PRICE, _PICTURE, _MEANWHILE, _DELTA_TIMES, _LOST],
    )


def _round(shop: Shop) -> tuple[dict[str, float], str]:
    with _load(shop, _PER_S) as latencies:
        found = _delays(shop)
    found[_MEANWHILE] = _p99(latencies)
    before, after = _latencies(shop)
    found[_DELTA_TIMES] = after / before
    found[_LOST] = _lost(shop)
    rate, alone = _import_rates(shop)
    found[_IMPORT] = rate / alone
    note = (
        f"p99 {after:.1f} ms with and {before:.1f} ms without a delta; {rate:.0f} products/s "
        f"imported, {alone:.0f}/s by the encoder alone."
    )
    return found, note


@contextmanager
def _shop(workspace: Path | None) -> Iterator[Shop]:
    state = only_server(None, workspace)
    home = state.directory.parent
    plan = read_model(home / "shelf.json", ShelfPlan, "plan of a shelf")
    key = (home / "gateway" / "local.key").read_text().strip()
    picture = next(path for path in Path(state.catalog).rglob("*.jpg"))
    with EventStore.open(plan.store_url) as store, Client(state) as client:
        shop = Shop(state, store, client, plan, key, picture.read_bytes())
        try:
            yield shop
        finally:
            for name in shop.items.get(shop.made):
                shop.items.delete(name)


@contextmanager
def _load(shop: Shop, per_s: float) -> Iterator[list[float]]:
    """Ask for recommendations at a steady rate; yield the latencies in milliseconds."""
    latencies: list[float] = []
    known = [item.id for item in shop.items.page(limit=1_000)]
    headers = {"Authorization": f"Bearer {shop.key}"}
    url = f"{_running(shop.state.gateway).url}/v1/recommend"
    clients = 8

    def ask(number: int, ended: threading.Event) -> None:
        chance = _chance(number)
        with httpx.Client(headers=headers, trust_env=False, timeout=10) as http:
            due_s = time.monotonic() + number / per_s
            while not ended.wait(max(0.0, due_s - time.monotonic())):
                history = [known[at] for at in chance.choice(len(known), 5, replace=False)]
                body = {"unit": f"u{chance.random()}", "history": history, "k": 10}
                with suppress(httpx.TransportError):
                    http.post(url, json=body)
                    # From when it was due: a queue before a slow answer counts.
                    latencies.append((time.monotonic() - due_s) * 1000)
                due_s += clients / per_s

    with in_threads(ask, clients):
        yield latencies


def _delays(shop: Shop) -> dict[str, float]:
    """Measure new texts, prices and pictures, p99 in seconds."""
    text, price, pictured = [], [], []
    for number in range(_ROUNDS):
        name, cost = f"bench-{time.time_ns()}", 1000.0 + number
        shop.items.put([ItemWrite(shop.product(name, price=1))])
        text.append(shop.delay_s(name))
        shop.items.patch(name, {"price": cost})
        price.append(shop.delay_s(name, cost))
        # Further bytes at the end make another picture of it.
        picture = shop.picture + number.to_bytes(4, "big")
        shop.items.put([ItemWrite(shop.product(f"{name}-p"), picture)])
        pictured.append(shop.delay_s(f"{name}-p"))
    return {_TEXT: _p99(text), _PRICE: _p99(price), _PICTURE: _p99(pictured)}


def _latencies(shop: Shop) -> tuple[float, float]:
    """Return p99 in milliseconds without and with a delta that changes."""
    with _load(shop, _PER_S) as before:
        time.sleep(_SECONDS)
    name = f"bench-delta-{time.time_ns()}"
    columns = [shop.product(f"{name}-{number}") for number in range(_DELTA - 100)]
    for start in range(0, len(columns), 500):
        shop.items.put([ItemWrite(one) for one in columns[start : start + 500]])
    _wait_visible(shop)

    context = get_context("spawn")
    began = context.Event()
    arguments = shop.plan.store_url, [f"{name}-{number}" for number in range(500)], began
    # Not in a thread: it would keep those that ask from reading their answers in time.
    process = context.Process(target=_change, args=arguments, daemon=True)
    process.start()
    try:
        began.wait(_PATIENCE_S)
        with _load(shop, _PER_S) as after:
            time.sleep(_SECONDS)
    finally:
        process.terminate()
        process.join()
    return _p99(before), _p99(after)


def _change(url: str, names: Sequence[str], began: Event) -> None:
    """Change prices at a steady rate until this process is ended."""
    with EventStore.open(url) as store:
        for number in itertools.count(1):
            store.items.patch(names[number % len(names)], {"price": float(number)})
            began.set()
            time.sleep(1 / _CHANGES_PER_S)


def _lost(shop: Shop) -> int:
    """Kill processes one after the other; return the number of changes that were lost."""
    chance = _chance(3)
    prices: dict[str, float] = {}
    for number in range(_KILLS):
        while not (found := _killable(shop.state)):
            time.sleep(_POLL_S)
        with suppress(ProcessLookupError):
            os.kill(found[chance.integers(len(found))].pid, signal.SIGKILL)
        for turn in range(3):
            name = f"bench-kill-{number}-{turn}"
            prices[name] = 10.0 + number
            shop.items.put([ItemWrite(shop.product(name, price=prices[name]))])
            time.sleep(chance.random() / 2)
    _wait_visible(shop)
    deadline_s = time.monotonic() + _PATIENCE_S
    missing = {*prices}
    while missing and time.monotonic() < deadline_s:
        missing = {name for name in missing if not shop.shows(name, prices[name])}
    return len(missing)


def _killable(state: ServerState) -> list[psutil.Process]:
    """Return a gateway process, the shelf and a ready worker of the recommender."""
    processes = state.current().processes
    killed = [one for name, one in processes.items() if name.startswith(("gateway", "shelf"))]
    found = [one for each in killed for one in members(each)]
    with Client(state) as client, suppress(Exception):
        for version in client.describe("recommender", "all"):
            # TorchServe waits longer and longer with a worker that dies while it loads.
            ready = [one for one in version["workers"] if one["status"] == "READY"]
            found += [psutil.Process(int(worker["pid"])) for worker in ready]
    return found


def _import_rates(shop: Shop) -> tuple[float, float]:
    """Return products per second of an import, and of the encoder in this process."""
    count = _IMPORTED
    name = f"bench-import-{time.time_ns()}"
    # Not just any of the archives: that of a first start is in float32.
    known = [item.id for item in shop.items.page(limit=1)]
    answer = shop.client.predict("recommender", json={"candidates": known, "k": 1})
    model = ShelfModel(shop.plan.folder / ".archives" / answer.json()["model_version"])
    columns = [shop.product(f"{name}-{number}") for number in range(count)]
    sample = shop.items.put([ItemWrite(one) for one in columns[:256]])
    model.encode(sample[:64], lambda _: b"")
    # Until then, the shelf and a worker that was killed use the same cores.
    _wait_visible(shop)
    while not shop.shows(f"{name}-0"):
        time.sleep(_POLL_S)
    start_s = time.monotonic()
    for start in range(0, _ENCODED_ALONE, 64):
        at = start % len(sample)
        model.encode(sample[at : at + 64], lambda _: b"")
    alone = _ENCODED_ALONE / (time.monotonic() - start_s)
    start_s = time.monotonic()
    for start in range(256, count, 500):
        shop.items.put([ItemWrite(one) for one in columns[start : start + 500]])
    _wait_visible(shop)
    rate = (count - 256) / (time.monotonic() - start_s)
    return rate, alone


def _wait_visible(shop: Shop) -> None:
    """Wait until every change is published."""
    last = shop.items.last_seq()
    deadline_s = time.monotonic() + 10 * _PATIENCE_S
    while any(one.seq < last for one in shop.items.hosts()) or not shop.items.hosts():
        if time.monotonic() > deadline_s:
            raise TimeoutError("changes were not published")
        time.sleep(0.05)


def _running(process: _Process | None) -> _Process:
    """Return a part of the server.

    Raises:
        ServerError: it was started without.
    """
    if process is None:
        raise ServerError("this server has no gateway or no live shelf")
    return process


def _chance(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _p99(latencies: list[float]) -> float:
    return float(np.quantile(latencies, 0.99))
