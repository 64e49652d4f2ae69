"""The gateway's overhead per request: a gateway on one core, a stub behind it on another.

Measures the gateway with the event store (SQLite) and without: latency of a lone client,
throughput of 16 clients, and the gateway's CPU time per request, which is the most telling
where other work uses the cores.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.processes import module_command, module_environment
from benchmarks.serve.contender import Endpoint, running, wait_for_answer
from benchmarks.serve.cpu import Spent
from benchmarks.serve.wrk import Request, load, require_wrk
from newshelf.config import GatewaySettings
from newshelf.gateway.fallback import write_popular
from newshelf.gateway.keys import KeyFile
from newshelf.report.page import ReportTable, print_table
from newshelf.server.ports import free_port
from newshelf.server.process import write_plan
from newshelf.server.program import GatewayPlan

_LONE, _MANY = 1, 16
_ITEMS = 1_300
_UNITS = 2_000
"""Different shoppers, each in a request of its own."""
_NO_COLUMNS = (
    "title", "product_type", "brand", "color", "material", "size", "price", "availability",
    "created_at",
)  # fmt: skip


@dataclass(frozen=True)
class GatewayLatency:
    """One server under two loads."""

    name: str
    lone_p50_ms: float
    lone_p99_ms: float
    per_second: float
    many_p99_ms: float
    cpu_us: float
    """CPU time of the server per request, with many clients."""


def run(cores: tuple[int, int], *, rounds: int, seconds: float, console: Console) -> None:
    """Load stub and gateways in turns, and print the best of the rounds.

    The best, since other work on the machine only ever takes away.

    ``cores`` are the gateway's, and that of stub and client.

    Raises:
        BenchmarkError: wrk is not installed, or a server failed.
    """
    require_wrk()
    found: dict[str, list[GatewayLatency]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, _pinned(cores[1]):
            for one in _round(Path(folder), cores[0], seconds):
                found.setdefault(one.name, []).append(one)
    best = [_best(several) for several in found.values()]
    table = ReportTable(
        "",
        ("", "p50 ms", "added", "p99 ms", "requests/s", "CPU µs"),
        [
            (
                one.name,
                f"{one.lone_p50_ms:.3f}",
                f"{one.lone_p50_ms - best[0].lone_p50_ms:.3f}",
                f"{one.lone_p99_ms:.3f}",
                f"{one.per_second:,.0f}",
                f"{one.cpu_us:.0f}",
            )
            for one in best
        ],
    )
    print_table(table, console)


def _round(folder: Path, core: int, seconds: float) -> Iterator[GatewayLatency]:
    bodies = []
    for number in range(_UNITS):
        history = ["NS00012", "NS00045", "NS00100"]
        path = folder / f"{number}.json"
        path.write_text(json.dumps({"unit": f"u{number}", "history": history, "k": 10}))
        bodies.append(path)
    stub_port = free_port()
    stub = ["benchmarks.gateway.stub", str(stub_port)]
    with _server(stub, stub_port, "/predictions/recommender", folder) as endpoint:
        yield _measure("stub alone", endpoint, bodies, seconds)
        plan, key = _plan(folder, endpoint.url)
        write_plan(folder / "plan.json", plan)
        for name, module in (
            ("gateway, no record", "benchmarks.gateway.unrecorded"),
            ("gateway, SQLite", "newshelf.gateway.main"),
        ):
            words, port = [module, str(folder / "plan.json")], plan.settings.port
            with _server(words, port, "/v1/recommend", folder, key=key, core=core) as gateway:
                yield _measure(name, gateway, bodies, seconds)


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Pin this process, and what it starts, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _server(
    words: Sequence[str],
    port: int,
    path: str,
    folder: Path,
    *,
    key: str = "",
    core: int | None = None,
) -> Iterator[Endpoint]:
    """Run a module as a server; ``core`` replaces the core of this process."""
    command = module_command(*words)
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    log = folder / f"{words[0]}.log"
    with running(command, cwd=folder, env=module_environment(), log=log) as process:
        yield Endpoint(f"http://127.0.0.1:{port}", path, process, headers)


def _measure(
    name: str, endpoint: Endpoint, bodies: Sequence[Path], seconds: float
) -> GatewayLatency:
    wait_for_answer(endpoint, bodies[0])
    requests = [Request(endpoint.path, body, endpoint.headers) for body in bodies]
    load(endpoint.url, requests, clients=_MANY, seconds=1)
    lone = load(endpoint.url, requests, clients=_LONE, seconds=seconds)
    spent = Spent.watch(endpoint.process)
    many = load(endpoint.url, requests, clients=_MANY, seconds=seconds)
    cpu_us = sum(spent.per_request_us(many.requests).values())
    return GatewayLatency(name, lone.p50_ms, lone.p99_ms, many.per_second, many.p99_ms, cpu_us)


def _best(several: Sequence[GatewayLatency]) -> GatewayLatency:
    return GatewayLatency(
        several[0].name,
        min(one.lone_p50_ms for one in several),
        min(one.lone_p99_ms for one in several),
        max(one.per_second for one in several),
        min(one.many_p99_ms for one in several),
        min(one.cpu_us for one in several),
    )


def _plan(folder: Path, url: str) -> tuple[GatewayPlan, str]:
    columns: dict[str, list[Any]] = {name: [None] * _ITEMS for name in _NO_COLUMNS}
    columns["id"] = [f"NS{number:05}" for number in range(_ITEMS)]
    columns["popularity"] = [float(number) for number in range(_ITEMS)]
    write_popular(columns, folder / "popular.json")
    keys = KeyFile(folder / "keys.json")
    key = keys.add("bench", now=datetime.now(UTC), expires=None, rate_per_s=1e6)
    return GatewayPlan(
        settings=GatewaySettings(port=free_port()),
        inference_url=url,
        api_keys=keys.path,
        popular=folder / "popular.json",
        store_url=f"sqlite:///{folder / 'events.db'}",
    ), key
