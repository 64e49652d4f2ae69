"""Results of the benchmark of retraining, from parts whose values are known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.records import Values
from benchmarks.results import judge
from benchmarks.retrain import robots, weeks
from benchmarks.transfer.command import TransferContext
from newshelf.catalog.robots import DAY_S
from newshelf.config import Settings


@dataclass(frozen=True)
class Known(TransferContext):
    """Answers every part with the same values, and measures nothing."""

    values: Values = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)

    def measured(self, task: str, seed: int, measure: Callable[[], Values]) -> Values:
        self.parts.append(f"{task}-{seed}")
        return self.values


@pytest.fixture
def known(tmp_path: Path) -> Callable[[Values], Known]:
    def make(values: Values) -> Known:
        quiet = Console(quiet=True)
        return Known(tmp_path, None, tmp_path, tmp_path, (0, 1), quiet, Settings(), values)

    return make


def test_weeks_are_judged_by_the_last_one(known: Callable[[Values], Known]):
    context = known(
        {
            "never retrained": [0.1, 0.1, 0.1, 0.1],
            "retrained": [0.1, 0.1, 0.1, 0.3],
            "passed": [False, False, False, True],
        }
    )
    result = weeks.run(context)
    (verdict,) = judge(result)
    assert verdict.reached
    assert verdict.needed == pytest.approx(0.12)
    assert "2 of 8 candidates" in result.notes[0]
    assert all(path.is_file() for path in result.figures.values())
    assert context.parts == ["weeks-0", "weeks-1"]


@pytest.mark.parametrize("promoted", [0, 1])
def test_no_worse_candidate_may_be_promoted(known: Callable[[Values], Known], promoted: int):
    result = weeks.run_worse(known({"better": promoted, "no-worse": 0}))
    assert [verdict.reached for verdict in judge(result)] == [promoted == 0]


def test_lifts_are_judged_by_the_bounded_training(known: Callable[[Values], Known]):
    lifts = dict.fromkeys(robots.ATTACKS, 7.0) | {"known": 40.0}
    context = known({**lifts, "ndcg": 0.2})
    result = robots.run(context)
    assert [verdict.reached for verdict in judge(result)] == [True, True, True, False]
    # Two seeds, two bounds, and four products each.
    assert len(set(context.parts)) == 2 * 2 * (1 + 4)


def test_robots_are_one_in_a_hundred_and_take_the_product_as_the_attack_says():
    shop = robots.made_up(0)
    (chosen,) = shop.medium(1, 0)
    assert chosen == shop.medium(1, 0)[0]
    last = shop.events["timestamp"].max() // DAY_S
    for attack, days in (("one view", 1), ("among others", 1), ("five days", 5), ("known", 1)):
        events = shop.attacked(attack, chosen, 0)
        sent = events[events["user_id"].str.startswith("robot")]
        assert sent["user_id"].nunique() == 11
        lifting = sent[sent["item_id"] == chosen]
        assert (lifting["timestamp"] // DAY_S).nunique() == days
        assert (lifting["timestamp"] // DAY_S).max() == last
        assert (len(sent) > len(lifting)) == (attack != "one view")
        earliest = sent.groupby("user_id")["timestamp"].min() // DAY_S
        assert np.all((last - earliest > 7) == (attack in {"known", "five days"}))
