"""Waiting time of an answer until it is stored."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.processes import run_module
from benchmarks.report import markdown_table
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.serve.cpu import Others
from benchmarks.store.command import StoreContext
from benchmarks.store.postgres import Postgres
from benchmarks.store.writer import GatewayLoad, Waits

_BYTES = 16 * 1024
_WRITES = 200


def sync_ms(folder: Path) -> list[float]:
    """Return ``(200,)`` times to append 16 KiB to a file and wait for ``fdatasync``."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_WRITES):
            os.write(file.fileno(), b"x" * _BYTES)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e3)
    return taken


_GOAL_MS = 5.0
_WARM_UP_S = 3.0
_NOTHING, _DISK = "no database", "fdatasync of 16 KiB alone"


@dataclass(frozen=True)
class _Contender:
    name: str
    gateways: int
    database: Callable[[Path], AbstractContextManager[str | None]]
    """Creates an empty database in a folder."""
    baseline: bool = False


@dataclass(frozen=True)
class _Turn:
    """One load of one contender."""

    results: list[Waits]
    """One per gateway."""
    others: float
    """Share of the cores that other work took."""

    @property
    def failed(self) -> int:
        return sum(one.failed for one in self.results)

    @property
    def per_second(self) -> float:
        return sum(len(one.waits_ms) / one.measured_s for one in self.results)

    @property
    def cpu_us(self) -> float:
        """CPU time of the gateways' processes per answer."""
        answers = sum(len(one.waits_ms) for one in self.results)
        return sum(one.cpu_s for one in self.results) / answers * 1e6

    def percentile_ms(self, percent: float) -> float:
        waits = [wait for one in self.results for wait in one.waits_ms]
        return float(np.percentile(waits, percent))


def run(context: StoreContext) -> TaskResult:
    """Measure each database in turn, and no database."""
    contenders = _contenders()
    turns: dict[str, list[_Turn]] = {one.name: [] for one in contenders}
    syncs: list[float] = []
    for number in range(context.rounds):
        syncs.append(float(np.percentile(sync_ms(context.work), 99)))
        for one in contenders:
            turn = _measure(one, context, number)
            turns[one.name].append(turn)
            context.console.print(
                f"round {number + 1}, {one.name}: p50 {turn.percentile_ms(50):.2f} ms, "
                f"p99 {turn.percentile_ms(99):.2f} ms, others {turn.others:.0%}"
            )
    rows, goals = _rows(contenders, turns, syncs)
    return TaskResult(
        task="writes",
        title="How long an answer waits until it is stored",
        protocol=(
            f"{context.per_second:g} answers per second with ten products each, at random "
            f"moments (exponential gaps), for {context.seconds:g} s after {_WARM_UP_S:g} s of "
            f"warm-up. The event loop computes {context.busy_us:g} µs for each, "
            "as a gateway does. A wait is from the call of `GroupCommit.exposure` to its return. "
            f"*{_NOTHING}* is the same load, event loop and thread with a store that keeps "
            "nothing: what the machine adds by itself."
        ),
        rows=rows,
        goals=goals,
        notes=[
            "SQLite does not wait for the disk: what was acknowledged survives the death of "
            "every process, not a power cut. PostgreSQL waits for it, so its wait is the "
            f"disk's (*{_DISK}*: write and wait, one at a time, nothing else); with `fsync = off` "
            "it promises what SQLite does here, and a power cut may damage it."
        ],
        details=_details(contenders, turns),
        percent=False,
        lower_is_better=[row.measure for row in rows],
    )


def _contenders() -> list[_Contender]:
    return [
        _Contender(_NOTHING, 1, _nothing, baseline=True),
        _Contender("SQLite", 1, _sqlite),
        _Contender("SQLite, two gateways", 2, _sqlite),
        _Contender("PostgreSQL", 1, _postgres(())),
        _Contender("PostgreSQL, fsync = off", 1, _postgres(("fsync=off",))),
    ]


@contextmanager
def _nothing(_folder: Path) -> Iterator[None]:
    yield None


@contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/events.db"


def _postgres(settings: tuple[str, ...]) -> Callable[[Path], AbstractContextManager[str]]:
    @contextmanager
    def database(_folder: Path) -> Iterator[str]:
        with Postgres(settings) as server:
            yield server.url()

    return database


def _measure(contender: _Contender, context: StoreContext, number: int) -> _Turn:
    with (
        tempfile.TemporaryDirectory(dir=context.work) as folder,
        contender.database(Path(folder)) as url,
    ):
        plans = [
            GatewayLoad(
                url=url,
                per_second=context.per_second / contender.gateways,
                seconds=context.seconds,
                warm_up_s=_WARM_UP_S,
                busy_us=context.busy_us,
                seed=100 * number + gateway,
            )
            for gateway in range(contender.gateways)
        ]
        others = Others(len(os.sched_getaffinity(0)))
        return _Turn(stored(plans), others.share())


def stored(plans: list[GatewayLoad]) -> list[Waits]:
    """Load a store from a process per gateway.

    Raises:
        BenchmarkError: one failed.
    """

    def one(plan: GatewayLoad) -> Waits:
        printed = run_module("benchmarks.store.writer", given=json.dumps(asdict(plan)))
        return Waits(**json.loads(printed))

    with ThreadPoolExecutor(len(plans)) as pool:
        return list(pool.map(one, plans))


def _rows(
    contenders: list[_Contender], turns: dict[str, list[_Turn]], syncs: list[float]
) -> tuple[list[Row], list[Goal]]:
    """Return a measure per database; baselines are no database and, for PostgreSQL, the disk."""
    alone = [turn.percentile_ms(99) for turn in turns[_NOTHING]]
    rows, goals = [], []
    for one in contenders:
        if one.baseline:
            continue
        measure = f"{one.name}: p99, ms"
        waits = [turn.percentile_ms(99) for turn in turns[one.name]]
        rows.append(Row(measure, one.name, waits, robust=True))
        rows.append(Row(measure, _NOTHING, alone, baseline=True, robust=True))
        if one.name == "PostgreSQL":
            rows.append(Row(measure, _DISK, syncs, baseline=True, robust=True))
        goals.append(Goal(measure, _GOAL_MS))
    return rows, goals


def _details(contenders: list[_Contender], turns: dict[str, list[_Turn]]) -> str:
    header = (
        "contender",
        "per second",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs",
        "failed",
        "others",
    )
    lines = []
    for one in contenders:
        mine = turns[one.name]
        waits = [
            f"{median(turn.percentile_ms(percent) for turn in mine):.2f}"
            for percent in (50, 90, 99, 99.9)
        ]
        lines.append(
            (
                one.name,
                f"{median(turn.per_second for turn in mine):.0f}",
                *waits,
                f"{median(turn.cpu_us for turn in mine):.0f}",
                str(sum(turn.failed for turn in mine)),
                f"{max(turn.others for turn in mine):.0%}",
            )
        )
    text = (
        "Medians of the rounds. *CPU* is what the gateways' processes took per answer, their own "
        "computing and the load's making included; *others* the most that other programs took of "
        "the cores during a turn."
    )
    return f"{markdown_table(header, 'lrrrrrrrr', lines)}\n\n{text}"
