"""The event store on both databases, each of them a real one."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from benchmarks.store.postgres import Postgres
from newshelf.store.records import ExposedItem, Exposure, Feedback, TrafficSplit
from newshelf.store.schema import METADATA
from newshelf.store.store import EventStore
from tests.unit.store.helpers import START

DATABASES = [
    "sqlite",
    # One process starts one server.
    pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql")),
]

MakeExposure = Callable[..., Exposure]
MakeFeedback = Callable[..., Feedback]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server; without waiting for the disk, which only a power cut would tell."""
    with Postgres(["fsync=off", "max_connections=50"]) as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The URL of a database with the schema, which tests use in turn."""
    url = postgres.create_database("migrated")
    EventStore.open(url).close()
    return url


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database without rows."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("empty_store"), tmp_path / "events.db")
        return f"sqlite:///{tmp_path}/events.db"
    found: str = request.getfixturevalue("migrated")
    engine = create_engine(found)
    with engine.begin() as connection:
        # What the test before has left open would hold its locks.
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        connection.execute(text(f"TRUNCATE {', '.join(METADATA.tables)} RESTART IDENTITY"))
    engine.dispose()
    return found


@pytest.fixture(params=DATABASES)
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database of its own, without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    name = re.sub(r"\W+", "_", f"t_{tmp_path.parent.name}_{tmp_path.name}".lower())
    server: Postgres = request.getfixturevalue("postgres")
    return server.create_database(name)


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    """Open, and empty."""
    with EventStore.open(url, window=timedelta(hours=1)) as opened:
        yield opened


@pytest.fixture
def exposure() -> MakeExposure:
    """Answers with the products that are named, one second after the other."""
    numbers = itertools.count()

    def make(*items: str, at_s: float | None = None, **values: object) -> Exposure:
        number = next(numbers)
        given = {
            "request_id": f"request-{number}",
            "unit": "ann",
            "at": START + timedelta(seconds=number if at_s is None else at_s),
            "model_version": "2.0",
            "index_version": "7",
            "latency_ms": 12.5,
        }
        shown = tuple(
            ExposedItem(
                item_id=item, position=place, score=1 / place, source="model", propensity=0.5
            )
            for place, item in enumerate(items, start=1)
        )
        return Exposure.model_validate({**given, "items": shown, **values})

    return make


@pytest.fixture
def feedback() -> MakeFeedback:
    """Events, each with an id of its own."""
    numbers = itertools.count()

    def make(item: str, kind: str = "click", at_s: float = 100, **values: object) -> Feedback:
        given = {"event_id": f"event-{next(numbers)}", "at": START + timedelta(seconds=at_s)}
        return Feedback.model_validate({**given, "item_id": item, "event_type": kind, **values})

    return make


@pytest.fixture
def split() -> Callable[..., TrafficSplit]:
    """Of a rollout at five per cent."""

    def make(rollout: str = "spring", **values: object) -> TrafficSplit:
        given = {"salt": "s", "control": "2.0", "challenger": "3.0", "share": 0.05}
        return TrafficSplit.model_validate({"rollout": rollout, **given, **values})

    return make
