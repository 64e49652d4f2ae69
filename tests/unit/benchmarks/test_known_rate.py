"""The rate that queueing gives, beside the exact distribution."""

import math

import pytest

from benchmarks.loadtest import known_rate
from newshelf.tuning.slo import LatencyLimit


def waiting_at_most(t_ms: float, rate: float, service_ms: float) -> float:
    """P(W ≤ t) of M/D/1 (Erlang 1909), with rate in requests/s."""
    per_ms = rate / 1e3
    terms = (
        (per_ms * (k * service_ms - t_ms)) ** k
        / math.factorial(k)
        * math.exp(-per_ms * (k * service_ms - t_ms))
        for k in range(int(t_ms // service_ms) + 1)
    )
    return (1 - per_ms * service_ms) * sum(terms)


@pytest.mark.parametrize(("service_ms", "most_ms"), [(20.0, 100.0), (10.0, 50.0), (10.0, 25.0)])
def test_at_the_greatest_rate_one_in_a_hundred_is_later_than_the_limit(service_ms, most_ms):
    rate = known_rate(service_ms, LatencyLimit(99, most_ms))
    assert waiting_at_most(most_ms - service_ms, rate, service_ms) == pytest.approx(0.99, abs=5e-4)
