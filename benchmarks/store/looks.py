"""Duration of one look of the analysis."""

import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.results import Goal, Row, TaskResult
from benchmarks.store.command import StoreContext
from benchmarks.store.postgres import Postgres
from benchmarks.store.writer import click, made_answer
from newshelf.store.aggregates import unit_totals, variant_health
from newshelf.store.records import Exposure
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

_ANSWERS, _GROUP = 200_000, 2_000
_CLICKED = 0.1
_DAY_S = 86_400.0
_GOAL_S = 6.0
_MEASURE = f"one look at {_ANSWERS:,} answers, s"


def run(context: StoreContext) -> TaskResult:
    """Fill each database, and observe it once per round."""
    rows = []
    with tempfile.TemporaryDirectory(dir=context.work) as folder:
        rows.append(_look("SQLite", f"sqlite:///{Path(folder)}/events.db", context))
    with Postgres(["fsync=off"]) as server:
        rows.append(_look("PostgreSQL", server.url(), context))
    return TaskResult(
        task="looks",
        title="How long one look takes",
        protocol=(
            f"Totals and health of a rollout with {_ANSWERS:,} answers of ten products each "
            "in two variants, the last tenth of them in the current step, and with a click in "
            f"{_CLICKED:.0%} of them. The goal is a tenth of the minute between two looks."
        ),
        rows=rows,
        goals=[Goal(_MEASURE, _GOAL_S)],
        percent=False,
        lower_is_better=[_MEASURE],
    )


def _look(name: str, url: str, context: StoreContext) -> Row:
    began = datetime.now(UTC)
    step_since = began + timedelta(seconds=0.9 * _ANSWERS)
    seconds = []
    with EventStore.open(url) as store:
        _fill(store, began)
        for _ in range(context.rounds):
            start = time.perf_counter()
            with store.database.reading() as connection:
                for variant in unit_totals(connection, "spring", before_window_s=_DAY_S):
                    variant_health(connection, "spring", variant, since=step_since)
            seconds.append(time.perf_counter() - start)
            context.console.print(f"{name}: {seconds[-1]:.2f} s")
    return Row(_MEASURE, name, seconds, robust=True)


def _fill(store: EventStore, began: datetime) -> None:
    """Write one answer per second of the rollout."""
    chance = random.Random(1)  # noqa: S311 - reproducible, nothing is secret
    for first in range(0, _ANSWERS, _GROUP):
        answers = [
            _placed(made_answer(chance), began + timedelta(seconds=number))
            for number in range(first, first + _GROUP)
        ]
        clicks = [click(answer) for answer in answers if chance.random() < _CLICKED]
        store.write(WriteBatch(answers, clicks))


def _placed(answer: Exposure, at: datetime) -> Exposure:
    """Return the answer at another time, in the shopper's variant."""
    variant = "challenger" if int(answer.unit.rpartition("-")[2]) % 2 else "control"
    return answer.model_copy(update={"at": at, "variant": variant})
