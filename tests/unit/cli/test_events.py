"""The verbs of events: exported for training, removed when they are old."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from newshelf.rollout.plan import draft, load_plan
from newshelf.store.records import ExposedItem, Exposure, Feedback
from newshelf.store.store import EventStore, prune
from newshelf.store.write import WriteBatch
from tests.unit.cli.verbs import Run, verbs_of

PLAN = Path(__file__).resolve().parents[3] / "configs" / "rollout.yaml"


@pytest.fixture
def url(tmp_path: Path, empty_store: Path) -> str:
    shutil.copyfile(empty_store, tmp_path / "events.db")
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def run(tmp_path: Path, url: str) -> Run:
    return verbs_of("events", tmp_path, url)


@pytest.fixture(autouse=True)
def bought(url: str) -> None:
    """One click each, 100, 10 and 1 days ago."""
    with EventStore.open(url) as store:
        for days in (100, 10, 1):
            at = datetime.now(UTC) - timedelta(days=days)
            item = ExposedItem(item_id="ring", position=1, score=1, source="model", propensity=1)
            store.write(
                WriteBatch(
                    exposures=[
                        Exposure(
                            request_id=f"{days}",
                            unit="ann",
                            at=at,
                            model_version="1",
                            index_version="1",
                            latency_ms=1,
                            items=(item,),
                        )
                    ]
                )
            )
            click = Feedback(
                event_id=f"{days}", event_type="click", item_id="ring", at=at, request_id=f"{days}"
            )
            assert store.write(WriteBatch(feedback=[click])) == ["stored"]


def left(url: str) -> list[str]:
    with EventStore.open(url) as store:
        events = [one.event_id for one in store.feedback()]
        assert [one.request_id for one in store.exposures()] == events
        return events


def test_export_writes_the_catalogues_events(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    code, output = run("export", path)
    assert code == 0, output
    assert output == f"3 new events → {path}"
    table = pd.read_parquet(path)
    assert table["user_id"].tolist() == ["ann"] * 3
    assert table["item_id"].tolist() == ["ring"] * 3
    assert run("export", path) == (0, f"0 new events → {path}")


def test_a_file_that_cannot_be_added_to_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("shopper;product\nann;ring\n")
    code, output = run("export", path)
    assert code == 2
    assert "stays as it is" in output
    assert path.read_text() == "shopper;product\nann;ring\n"


def test_another_format_is_refused(run: Run, tmp_path: Path) -> None:
    code, output = run("export", tmp_path / "events.json")
    assert code == 2
    assert ".parquet" in output
    assert not (tmp_path / "events.json").exists()


def test_prune_removes_older_rows(run: Run, url: str) -> None:
    code, output = run("prune", "--keep-days", "30")
    assert code == 0, output
    assert "1 answers, 1 events, 0 shadow answers" in output
    assert left(url) == ["10", "1"]


def test_a_clock_that_may_be_ahead_removes_nothing(run: Run, url: str) -> None:
    with EventStore.open(url) as store:
        # As if the clock had been put forward by 10 days since the last answer.
        prune(store.database, datetime.now(UTC) - timedelta(days=20))
        kept = next(iter(store.exposures()))
        prune(store.database, datetime.now(UTC))
        store.write(WriteBatch(exposures=[kept]))
    code, output = run("prune", "--keep-days", "5")
    assert code == 2
    assert f"the newest answer is of {kept.at:%Y-%m-%d}" in output
    with EventStore.open(url) as store:
        assert list(store.exposures()) == [kept]
    assert run("prune", "--keep-days", "5", "--force")[0] == 0
    assert left(url) == []


@pytest.mark.parametrize("days", ["1", "0", "-3", "nan", "1e9"])
def test_an_invalid_age_is_refused(run: Run, url: str, days: str) -> None:
    code, _ = run("prune", "--keep-days", days)
    assert code == 2
    assert left(url) == ["100", "10", "1"]


def test_rows_of_a_rollout_are_kept_until_it_is_over(run: Run, url: str) -> None:
    plan, state = load_plan(PLAN), draft("spring", "salt", datetime.now(UTC))
    with EventStore.open(url) as store:
        store.rollouts.create("spring", plan.model_dump_json(), state.model_dump_json(), None)
    code, output = run("prune", "--keep-days", "5")
    assert code == 2
    assert "rollout spring" in output
    assert left(url) == ["100", "10", "1"]
    # What is older than the fortnight before it is nobody's.
    assert run("prune", "--keep-days", "30")[0] == 0
    over = state.model_copy(update={"phase": "aborted"})
    with EventStore.open(url) as store:
        assert store.rollouts.replace_state("spring", 1, over.model_dump_json(), None, "ended")
    assert run("prune", "--keep-days", "5")[0] == 0
    assert left(url) == ["1"]
