"""A run of a transfer task that was interrupted resumes at the next seed."""

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import records
from benchmarks.records import Values
from benchmarks.transfer.command import TransferContext
from newshelf.config import Settings


class Measure:
    """Counts its calls."""

    calls = 0

    def __call__(self) -> Values:
        self.calls += 1
        return {"accuracy": 0.9 + self.calls / 100}


@pytest.fixture
def context(tmp_path: Path) -> TransferContext:
    work = tmp_path / "work"
    return TransferContext(tmp_path, None, work, work, (0, 1), Console(quiet=True), Settings())


def test_a_seed_of_the_same_sources_is_measured_once(
    context: TransferContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Measure()
    monkeypatch.setattr(records, "commit", lambda: "abc1234")
    first = [context.measured("episodes", seed, measure) for seed in context.seeds]
    assert [context.measured("episodes", seed, measure) for seed in context.seeds] == first
    assert measure.calls == 2
    assert context.measured("maml", 0, measure) != first[0]
    monkeypatch.setattr(records, "commit", lambda: "def5678")
    assert context.measured("episodes", 0, measure) != first[0]


@pytest.mark.parametrize("sources", [None, "abc1234+"])
def test_values_of_unknown_sources_are_not_kept(
    context: TransferContext, monkeypatch: pytest.MonkeyPatch, sources: str | None
) -> None:
    measure = Measure()
    monkeypatch.setattr(records, "commit", lambda: sources)
    assert context.measured("episodes", 0, measure) != context.measured("episodes", 0, measure)
    assert not context.work.exists()
