"""Lost workers: how long until all serve again, and what other requests get meanwhile."""

import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import httpx

from benchmarks.gpu import faulty_handler
from benchmarks.gpu.command import GpuContext
from benchmarks.gpu.faulty_handler import HEADER
from benchmarks.gpu.pictures import jpegs
from benchmarks.processes import in_threads
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.contender import JPEG
from benchmarks.serve.torchserve import serve_archives
from newshelf.errors import ServerError
from newshelf.server.client import Client

_HANDLER = "encoder_handler.py"
_WORKERS = 2
_NEIGHBOURS = 8
_BATCH = 8
_STEADY_S = 1.0
_START_S = 300.0
_GIVE_UP_S = 60.0
_PAUSE_S = 0.05
_BACK = "seconds until all workers serve again"
_BACK_S = 15.0
_LOST = "other requests without 200"


@dataclass
class _Neighbours:
    """Clients that send pictures one after the other, and keep the statuses."""

    url: str
    headers: dict[str, str]
    pictures: Sequence[bytes]
    statuses: list[tuple[float, int]] = field(default_factory=list)
    """When each answer came; 0 without one."""

    def send(self, _number: int, ended: threading.Event) -> None:
        """Send until the event is set."""
        with httpx.Client(timeout=_GIVE_UP_S, trust_env=False) as client:
            for picture in cycle(self.pictures):
                if ended.is_set():
                    return
                try:
                    answer = client.post(self.url, content=picture, headers=self.headers)
                    status = answer.status_code
                except httpx.TransportError:
                    status = 0
                self.statuses.append((time.monotonic(), status))

    def since(self, start: float) -> list[int]:
        """Return the statuses of answers after ``start``."""
        return [status for at, status in self.statuses if at >= start]


def run(context: GpuContext) -> TaskResult:
    """Lose a worker in each way, on one server."""
    model = context.model(text=False)
    store = context.work / "stores" / f"{context.scale.name}-recovery"
    mar = model.pack(store, *context.ways[0], workers=_WORKERS, batch=_BATCH)
    replace_handler(mar)
    rows: list[Row] = []
    with (
        serve_archives({"encoder": mar}, context.work / "servers" / "recovery") as state,
        Client(state) as client,
    ):
        _wait(client, _START_S, without=frozenset())
        url = f"{state.inference_url}/predictions/encoder"
        neighbours = _Neighbours(url, {**JPEG, **client.authorization()}, jpegs(16))
        faults: dict[str, Callable[[], object]] = {
            "device assert": lambda: _ask(neighbours, "assert"),
            "out of memory": lambda: _ask(neighbours, "memory"),
            "killed worker": lambda: os.kill(min(_ready(client)), signal.SIGKILL),
        }
        with in_threads(neighbours.send, _NEIGHBOURS):
            for name, fail in faults.items():
                time.sleep(_STEADY_S)
                before, start = _ready(client), time.monotonic()
                fail()
                loses = name != "out of memory"
                back = _wait(client, _GIVE_UP_S, without=before if loses else frozenset())
                time.sleep(_STEADY_S)
                statuses = neighbours.since(start)
                lost = sum(status != httpx.codes.OK for status in statuses)
                rows += [
                    Row(_BACK, name, [back - start]),
                    Row(_LOST, f"{name}, of {len(statuses)}", [lost]),
                ]
    return TaskResult(
        task="recovery",
        title="Lost workers",
        protocol=(
            f"{_WORKERS} workers of TorchServe, {_NEIGHBOURS} clients that send pictures all the "
            "time. A request lets its worker fail by an assertion on the device, then one asks "
            "for more memory than there is, then a worker is killed. A worker serves again when "
            "TorchServe calls it ready."
        ),
        rows=rows,
        # The longest of the three, and not the best, is what is promised.
        goals=[Goal(_BACK, _BACK_S, method=_slowest(rows))],
        notes=[
            "Requests in the batch of a worker that ends are answered with an error by "
            "TorchServe, without the gateway."
        ],
        percent=False,
        lower_is_better=[_BACK, _LOST],
    )


def _slowest(rows: Sequence[Row]) -> str:
    return max((row for row in rows if row.measure == _BACK), key=lambda row: row.mean).method


def _ask(neighbours: _Neighbours, fault: str) -> None:
    httpx.post(
        neighbours.url,
        content=neighbours.pictures[0],
        headers={**neighbours.headers, HEADER: fault},
        timeout=_GIVE_UP_S,
        trust_env=False,
    )


def _ready(client: Client) -> set[int]:
    """Return the processes of the workers that TorchServe calls ready."""
    [described] = client.describe("encoder")
    return {one["pid"] for one in described["workers"] if one["status"] == "READY"}


def _wait(client: Client, seconds: float, without: Set[int]) -> float:
    """Return the moment at which all workers are ready, and are others than ``without``.

    Raises:
        BenchmarkError: the time is over.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            ready = _ready(client)
        except (ServerError, httpx.TransportError, OSError, ValueError):
            ready = set()
        if len(ready) >= _WORKERS and ready != without:
            return time.monotonic()
        time.sleep(_PAUSE_S)
    raise BenchmarkError(f"not all workers are ready after {seconds:.0f} s")


def replace_handler(mar: Path) -> None:
    """Put the faulty handler in the place of the encoder's."""
    aside = mar.with_suffix(".aside")
    with zipfile.ZipFile(mar) as old, zipfile.ZipFile(aside, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == _HANDLER:
                data = Path(faulty_handler.__file__).read_bytes()
            new.writestr(name, data)
    aside.replace(mar)
