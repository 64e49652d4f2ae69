"""Measures the gateway on one core, with a stub behind it on the other.

``python -m benchmarks.gateway.measure`` prints, for the gateway with its record (SQLite) and
without: what it adds to a lone client's request, requests each second of 16 clients, and its
processor time for each request, which says most where something else uses the cores.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from newshelf.config import GatewaySettings
from newshelf.errors import SetupError
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.popular import write_popular
from newshelf.server.gateway_plan import GatewayPlan, write_plan
from newshelf.server.ports import free_port

__all__ = ["Measured", "measure"]

ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = Path(__file__).with_name("recommend.lua")
_LONE, _MANY = 1, 16
_ITEMS = 1_300
_NO_COLUMNS = (
    "title", "product_type", "brand", "color", "material", "size", "price", "availability",
    "created_at",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One server under two loads."""

    name: str
    lone_p50_ms: float
    lone_p99_ms: float
    per_second: float
    many_p99_ms: float
    cpu_us: float
    """Processor time of the server for each request of the many."""


def measure(seconds: float, cores: tuple[int, int], rounds: int) -> list[Measured]:
    """Load stub, gateway without and with its record, in turns; the best of ``rounds`` each.

    The best, since what else runs on the machine only ever takes away.

    Args:
        seconds: of one load.
        cores: the gateway's, and that of stub and client.
        rounds: how often.
    """
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        raise SetupError("the benchmark needs wrk and taskset")
    found: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, _stub(cores[1]) as stub:
            url = f"http://127.0.0.1:{stub}"
            plan, key = _plan(Path(folder), url)
            loads = [("stub alone", None), ("gateway, no record", "benchmarks.gateway.unrecorded")]
            for name, module in [*loads, ("gateway, SQLite", "newshelf.gateway.serve")]:
                if module is None:
                    one = _load(name, f"{url}/predictions/recommender", "", seconds, cores[1])
                else:
                    with _gateway(module, plan, Path(folder), cores[0]) as worker:
                        at = f"http://127.0.0.1:{plan.settings.port}/v1/recommend"
                        one = _load(name, at, key, seconds, cores[1], worker)
                found.setdefault(name, []).append(one)
    return [_best(several) for several in found.values()]


def _best(several: Sequence[Measured]) -> Measured:
    return Measured(
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
    items = folder / "items.json"
    items.write_text(json.dumps(columns))
    write_popular(items, folder / "popular.json")
    keys = KeyFile(folder / "keys.json")
    key = keys.add("bench", now=datetime.now(UTC), expires=None, rate_per_s=1e6)
    return GatewayPlan(
        settings=GatewaySettings(port=free_port()),
        inference_url=url,
        api_keys=keys.path,
        popular=folder / "popular.json",
        store_url=f"sqlite:///{folder / 'events.db'}",
    ), key


@contextmanager
def _stub(core: int) -> Iterator[int]:
    with _program("benchmarks.gateway.stub", [], core, stdout=subprocess.PIPE) as process:
        yield int((process.stdout or sys.stdin).readline())


@contextmanager
def _gateway(module: str, plan: GatewayPlan, folder: Path, core: int) -> Iterator[psutil.Process]:
    path = folder / "plan.json"
    write_plan(path, plan)
    with (
        (folder / "gateway.log").open("ab") as log,
        _program(module, [str(path)], core, stderr=log) as process,
    ):
        while not _alive(plan.settings.port):
            if process.poll() is not None:
                raise SetupError((folder / "gateway.log").read_text())
            time.sleep(0.1)
        children = psutil.Process(process.pid).children()
        yield next(one for one in children if "spawn_main" in " ".join(one.cmdline()))


@contextmanager
def _program(
    module: str, arguments: list[str], core: int, **streams: Any
) -> Iterator["subprocess.Popen[str]"]:
    command = ["taskset", "-c", str(core), sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, text=True, **streams)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _load(
    name: str,
    url: str,
    key: str,
    seconds: float,
    core: int,
    worker: psutil.Process | None = None,
) -> Measured:
    _wrk(url, key, 1.0, _MANY, core)
    lone = _wrk(url, key, seconds, _LONE, core)
    before = worker.cpu_times() if worker else None
    many = _wrk(url, key, seconds, _MANY, core)
    cpu_s = 0.0
    if worker is not None and before is not None:
        after = worker.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
    return Measured(
        name,
        lone["p50_us"] / 1e3,
        lone["p99_us"] / 1e3,
        many["requests"] / many["duration_us"] * 1e6,
        many["p99_us"] / 1e3,
        cpu_s / many["requests"] * 1e6,
    )


def _wrk(url: str, key: str, seconds: float, clients: int, core: int) -> dict[str, int]:
    load = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "-s", str(_SCRIPT), url]
    command = ["taskset", "-c", str(core), *load, "--", key or "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    if result["failed"]:
        raise SetupError(f"{result['failed']} requests to {url} failed")
    return result


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1))
    options = parser.parse_args()
    measured = measure(options.seconds, tuple(options.cores), options.rounds)
    base = measured[0]
    print(f"{'':20} {'p50 ms':>8} {'added':>8} {'p99 ms':>8} {'requests/s':>11} {'CPU µs':>8}")
    for one in measured:
        print(
            f"{one.name:20} {one.lone_p50_ms:8.3f} {one.lone_p50_ms - base.lone_p50_ms:8.3f} "
            f"{one.lone_p99_ms:8.3f} {one.per_second:11,.0f} {one.cpu_us:8.0f}"
        )


if __name__ == "__main__":
    _main()
