"""Off-policy estimates against a simulation whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.errors import EvidenceError
from newshelf.rollout.off_policy import (
    LoggedRows,
    effective_sample_size,
    estimate,
)

ACTIONS = 4
LOGGED = np.array([0.55, 0.25, 0.15, 0.05])
NEW = np.array([0.1, 0.2, 0.3, 0.4])
REWARD = np.array([0.05, 0.1, 0.2, 0.3])
TRUTH = float(NEW @ REWARD)
"""What the new version would earn; the old one earns 0.0975."""


def record(rows: int, seed: int, units: int | None = None) -> LoggedRows:
    """A record of the old version."""
    random = np.random.default_rng(seed)
    shown = random.choice(ACTIONS, rows, p=LOGGED)
    reward = (random.random(rows) < REWARD[shown]).astype(float)
    unit = random.integers(0, units or rows, rows)
    return LoggedRows(reward, LOGGED[shown], NEW[shown], unit)


def test_it_is_unbiased_and_as_sure_as_it_says() -> None:
    values, covered, said = [], 0, []
    for seed in range(400):
        found = estimate(record(2000, seed))
        values.append(found.value)
        said.append((found.high - found.low) / 2 / 1.96)
        covered += found.low <= TRUTH <= found.high
    error = np.std(values) / np.sqrt(400)
    # SNIPS is biased by O(1/n), which is far below the error here.
    assert abs(np.mean(values) - TRUTH) < 3.5 * error
    assert np.mean(said) == pytest.approx(np.std(values), rel=0.12)
    assert covered / 400 == pytest.approx(0.95, abs=0.035)


def test_the_plain_mean_of_the_record_is_something_else() -> None:
    rows = record(200_000, 1)
    assert rows.reward.mean() == pytest.approx(float(LOGGED @ REWARD), abs=0.005)
    assert abs(rows.reward.mean() - TRUTH) > 0.1


def test_against_a_naive_loop() -> None:
    rows = record(500, 7)
    columns = list(zip(rows.target / rows.propensity, rows.reward, strict=True))
    expected = sum(w * r for w, r in columns) / sum(w for w, _ in columns)
    assert estimate(rows).value == pytest.approx(expected)


def test_the_same_version_is_worth_what_it_earned() -> None:
    rows = record(1000, 2)
    same = LoggedRows(rows.reward, rows.propensity, rows.propensity, rows.unit)
    found = estimate(same)
    assert found.value == pytest.approx(rows.reward.mean())
    assert found.effective_rows == pytest.approx(1000)


def test_rows_of_one_shopper_are_not_independent() -> None:
    """Each row repeated tenfold by its shopper says no more than once."""
    once = record(800, 4)
    tenfold = LoggedRows(
        *(np.repeat(column, 10) for column in (once.reward, once.propensity, once.target)),
        np.repeat(np.arange(800), 10),
    )
    alone = estimate(LoggedRows(once.reward, once.propensity, once.target, np.arange(800)))
    together = estimate(tenfold)
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low == pytest.approx(alone.high - alone.low)


def test_the_interval_of_snips_does_not_depend_on_the_scale_of_the_weights() -> None:
    """As its value: a version that shows half of its products elsewhere is no surer."""
    rows = record(2000, 5, units=300)
    scaled = LoggedRows(rows.reward, rows.propensity, rows.target * 0.25, rows.unit)
    whole, quarter = (estimate(one) for one in (rows, scaled))
    assert (quarter.value, quarter.low, quarter.high) == pytest.approx(
        (whole.value, whole.low, whole.high)
    )


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("base", [0.0, 3.0])
def test_the_interval_of_snips_is_that_of_leaving_out_each_shopper(
    scale: float, base: float
) -> None:
    """The jackknife: another formula for the spread of the same ratio."""
    rows = record(2000, 5, units=200)
    reward = rows.reward + base
    rows = LoggedRows(reward, rows.propensity, rows.target * scale, rows.unit)
    weights = rows.target / rows.propensity
    left_out = []
    for shopper in np.unique(rows.unit):
        others = rows.unit != shopper
        left_out.append((weights * reward)[others].sum() / weights[others].sum())
    spread = np.sqrt((len(left_out) - 1) * np.var(left_out))
    found = estimate(rows)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.03)
    assert (found.high + found.low) / 2 == pytest.approx(found.value)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_kish_s_effective_sample_size(weights: list[float]) -> None:
    found = effective_sample_size(np.array(weights))
    assert 1 - 1e-9 <= found <= len(weights) + 1e-9
    assert effective_sample_size(np.full(len(weights), 3.0)) == pytest.approx(len(weights))


def test_known_effective_sample_sizes() -> None:
    assert effective_sample_size(np.array([1.0, 1, 1, 3])) == pytest.approx(36 / 12)
    assert effective_sample_size(np.zeros(5)) == 0


def test_too_little_evidence_is_refused() -> None:
    """One row in a thousand is what the new version would show."""
    random = np.random.default_rng(1)
    target = (random.random(20_000) < 0.001).astype(float)
    rows = LoggedRows(np.ones(20_000), np.full(20_000, 0.5), target, np.arange(20_000))
    with pytest.raises(EvidenceError, match=r"20000 rows count as 19"):
        estimate(rows)
    assert estimate(rows, least_effective_rows=10).effective_rows < 100


def test_one_shopper_is_no_sample() -> None:
    rows = record(500, 1, units=1)
    found = estimate(rows)
    assert (found.low, found.high) == (-np.inf, np.inf)
