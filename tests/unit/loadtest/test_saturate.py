"""The search, on simulated servers whose capacity is known."""

import numpy as np
import pytest

from loadtest.record import RunRecord
from loadtest.saturate import RateGoal, RateSearch, Saturation, saturate, trial
from loadtest.slo import LatencyLimit
from newshelf.errors import SettingsError
from tests.unit.loadtest.made_records import (
    made_record,
    made_second,
    queue_latencies_ms,
    queue_record,
)

SERVICE_S = 0.01
GOAL = RateGoal(LatencyLimit(99, 50.0))


class Server:
    """One worker of 10 ms, with noise; every run is another one."""

    def __init__(self, seed: int, *, noise: float = 0.1, drift: float = 0.05):
        self.runs = 0
        self._seed, self._noise, self._drift = seed, noise, drift

    def measure(self, rate: float, seconds: float) -> RunRecord:
        self.runs += 1
        return queue_record(
            rate,
            int(seconds),
            seed=1000 * self._seed + self.runs,
            service_s=SERVICE_S,
            noise=self._noise,
            drift=self._drift,
        )


def fixed(limit: float, *, generator_from: float = float("inf")):
    """Keeps the goal up to ``limit``; the generator is in time up to ``generator_from``."""

    def measure(rate: float, _seconds: float) -> RunRecord:
        service = 80.0 if rate > limit else 20.0
        late = rate > generator_from
        load = made_second(0, [service + 40.0 * late] * 100, service_ms=[service] * 100)
        return made_record([load], limited="the generator was busy" if late else "")

    return measure


def found(measure, **settings) -> Saturation:
    return saturate(measure, GOAL, RateSearch(**{"first_rate": 8.0, **settings}))


@pytest.mark.parametrize("limit", [0.7, 3.0, 8.0, 100.0, 777.0])
@pytest.mark.parametrize("first_rate", [1.0, 64.0, 5000.0])
def test_a_known_limit_is_found_to_the_resolution(limit, first_rate):
    result = found(fixed(limit), first_rate=first_rate)
    assert limit / 1.03 <= result.rate <= limit
    assert result.limited_by == "server"
    assert "p99 is 80." in result.reason
    assert "above 50 ms" in result.reason
    assert len(result.confirmed) == 3
    assert all(one.kept for one in result.confirmed)


def truth(seconds: int = 4000) -> float:
    """The rate at which p99 is 50 ms, by bisection on one long queue."""
    generator = np.random.default_rng(99)
    gaps = generator.exponential(1.0, 100 * seconds)
    service = np.full(len(gaps), SERVICE_S)
    low, high = 20.0, 99.0
    while high / low > 1.002:
        middle = (low * high) ** 0.5
        late = np.percentile(queue_latencies_ms(np.cumsum(gaps) / middle, service), 99)
        low, high = (middle, high) if late <= GOAL.latency.most_ms else (low, middle)
    return low


def test_three_searches_of_a_noisy_queue_agree_within_10_percent_and_with_the_truth():
    """Each of them meets other arrivals and other service times."""
    rates = [found(Server(seed).measure).rate for seed in (1, 2, 3)]
    assert max(rates) / min(rates) <= 1.10
    assert np.mean(rates) == pytest.approx(truth(), rel=0.10)


def test_when_the_generator_gave_out_first_it_says_so():
    result = found(fixed(500.0, generator_from=100.0))
    assert 100 / 1.03 <= result.rate <= 100
    assert result.limited_by == "generator"
    assert result.reason.endswith("the generator was busy")


def test_a_generator_that_is_late_but_not_too_late_changes_nothing():
    def measure(rate: float, seconds: float) -> RunRecord:
        record = fixed(100.0)(rate, seconds)
        busy = record.generator.model_copy(update={"limited": "the generator was late"})
        return record.model_copy(update={"generator": busy})

    result = found(measure)
    assert 100 / 1.03 <= result.rate <= 100
    assert result.limited_by == "server"


def test_a_goal_that_no_rate_keeps():
    result = found(fixed(0.0))
    assert (result.rate, result.limited_by) == (None, "server")
    assert result.trials[-1].rate == 0.5
    assert result.confirmed == ()


def test_a_goal_that_every_rate_keeps():
    result = found(fixed(1e9), most_rate=1000.0)
    assert (result.rate, result.limited_by) == (1000.0, "search")


def test_one_bad_run_while_doubling_is_repeated():
    calls = []

    def measure(rate: float, _seconds: float) -> RunRecord:
        calls.append(rate)
        hiccup = calls == [8.0, 16.0]
        return made_record([made_second(0, [900.0 if hiccup else 1.0] * 50)])

    assert found(measure, most_rate=64.0).rate == 64.0
    assert calls.count(16.0) == 2


def test_a_rate_that_is_not_confirmed_is_lowered():
    """It kept the goal while it was searched, and does no more."""
    at_100 = fixed(100.0)
    calls = 0

    def measure(rate: float, seconds: float) -> RunRecord:
        nonlocal calls
        calls += 1
        return (at_100 if calls <= searched else fixed(90.0))(rate, seconds)

    searched = len([one for one in found(at_100).trials if one.purpose != "confirm"])
    result = found(measure)
    assert 90 / 1.03 <= result.rate <= 90
    given_up = {one.rate for one in result.trials if one.purpose == "confirm"} - {result.rate}
    assert len(given_up) >= 2


def test_errors_and_dropped_arrivals_break_the_goal():
    def failing(rate: float, _seconds: float) -> RunRecord:
        errors = {"503": 5} if rate > 40 else {}
        return made_record([made_second(0, [1.0] * 100, errors=errors)])

    result = found(failing)
    assert 40 / 1.03 <= result.rate <= 40
    assert "4.76% of the requests failed" in result.reason

    def dropping(rate: float, _seconds: float) -> RunRecord:
        return made_record([made_second(0, [1.0] * 100, dropped=5 if rate > 40 else 0)])

    assert 40 / 1.03 <= found(dropping).rate <= 40


@pytest.mark.parametrize(("dropped", "kept"), [(0, True), (1, True), (2, False), (50, False)])
def test_a_rate_is_only_kept_where_nearly_all_was_sent(dropped, kept):
    """However many errors are allowed: what was not sent was not answered in time."""
    record = made_record([made_second(0, [1.0] * (100 - dropped), dropped=dropped)])
    assert trial(record, 100.0, "bracket", RateGoal(GOAL.latency, error_rate=1.0)).kept is kept


@pytest.mark.parametrize(
    "wrong",
    [{"first_rate": 0}, {"first_rate": 1e9}, {"resolution": 0}, {"seconds": 0}],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        RateSearch(**{"first_rate": 8.0, **wrong})
