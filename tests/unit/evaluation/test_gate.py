"""The gate's cases."""

import numpy as np
import pytest

from newshelf.catalog.interactions import Interactions
from newshelf.config import RetrainSettings
from newshelf.errors import EvidenceError
from newshelf.evaluation.gate import newest_split

DAY = 86_400
SETTINGS = RetrainSettings(min_cases=30)


def shoppers(count: int = 60, items: int = 20, days: int = 10) -> Interactions:
    """Each takes one product a day; product 0 comes on the last day only."""
    rng = np.random.default_rng(0)
    sequences, stamps = [], []
    for shopper in range(count):
        sequence = rng.choice(np.arange(1, items), days, replace=False)
        sequence[-1] = 0 if shopper % 2 else sequence[-1]
        sequences.append(sequence.astype(np.int64))
        stamps.append(np.arange(days, dtype=np.int64) * DAY + shopper)
    return Interactions(items, sequences, stamps, np.arange(count))


def test_cases_are_of_the_newest_days_and_training_is_before_them() -> None:
    split = newest_split(shoppers(), 0, SETTINGS, 0)
    assert split.train_timestamps is not None
    cut = 7 * DAY + 59
    assert max(times[-1] for times in split.train_timestamps) < cut
    assert len(split.cases) == 60
    assert all(len(case.history) >= 7 for case in split.cases)


def test_what_the_served_version_has_seen_is_no_case() -> None:
    split = newest_split(shoppers(), 8 * DAY + 59, SETTINGS, 0)
    assert split.train_timestamps is not None
    assert max(times[-1] for times in split.train_timestamps) == 8 * DAY + 59
    assert all(len(case.relevant) == 1 for case in split.cases)


@pytest.mark.parametrize("after", [0, 9 * DAY, 10 * DAY])
def test_too_few_cases_decide_nothing(after: int) -> None:
    wanted = SETTINGS.model_copy(update={"min_cases": 61})
    with pytest.raises(EvidenceError, match="needs 61"):
        newest_split(shoppers(), after, wanted, 0)


def test_baskets_have_no_newest_days() -> None:
    with pytest.raises(EvidenceError, match="no events with times"):
        newest_split(Interactions(3, [np.arange(3)], None, np.arange(1)), 0, SETTINGS, 0)
