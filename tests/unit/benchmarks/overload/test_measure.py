"""What is said of an overload: who was accepted, who got the fallback, who was refused."""

from benchmarks.overload.measure import Measured, percentile_ms, summed_up
from benchmarks.results import judge
from loadtest.recorder import FALLBACK, RIGHT, Outcome
from loadtest.requests import Rendered, as_json
from loadtest.slo import LatencyLimit, Slo, SloSet

MS = 1_000_000
LIMITS = SloSet(
    every=Slo((LatencyLimit(99, 2000),)), kinds={"recommend": Slo((LatencyLimit(99, 600),))}
)


def request(kind: str) -> Rendered:
    return as_json(kind, f"/v1/{kind}", {})


def outcomes(kind: str, result: str, count: int, ms: float) -> list[Outcome]:
    """Sent 1 ms late."""
    return [Outcome(request(kind), 0, MS, int(ms * MS), result) for _ in range(count)]


ALONE = Measured(0.0, 10.0, outcomes("recommend", RIGHT, 100, 50))
"""The capacity: 10 requests/s."""


def judged(*parts: list[Outcome]) -> dict[str, bool]:
    every = [one for part in parts for one in part]
    found = summed_up(ALONE, {3.0: Measured(30.0, 10.0, every)}, LIMITS, 0.0)
    return {one.goal.measure: one.reached for one in judge(found)}


def test_an_overload_that_the_goals_allow() -> None:
    verdicts = judged(
        outcomes("recommend", RIGHT, 95, 550),
        outcomes("recommend", FALLBACK, 150, 40),
        outcomes("encode", RIGHT, 5, 1900),
        outcomes("encode", "503", 50, 45),
    )
    assert verdicts == {
        "3 × capacity, encode, accepted: p99, ms": True,
        "3 × capacity, recommend, accepted: p99, ms": True,
        "3 × capacity, recommend, fallback: p99, ms": True,
        "3 × capacity, refused: p99, ms": True,
        "3 × capacity: accepted requests/s, as a share of the capacity": True,
        "3 × capacity: requests without an answer": True,
    }


def test_each_goal_can_be_missed() -> None:
    verdicts = judged(
        outcomes("recommend", RIGHT, 50, 650),
        outcomes("recommend", FALLBACK, 150, 700),
        outcomes("encode", RIGHT, 5, 2100),
        outcomes("encode", "503", 50, 60),
        outcomes("encode", "timeout", 1, 30_000),
    )
    assert len(verdicts) == 6
    assert not any(verdicts.values())


def test_a_collapse_is_not_hidden() -> None:
    """Nobody was accepted: there is no percentile, and the goal is missed."""
    verdicts = judged(outcomes("recommend", FALLBACK, 300, 20))
    assert verdicts["3 × capacity, recommend, fallback: p99, ms"]
    assert not verdicts["3 × capacity, recommend, accepted: p99, ms"]
    assert not verdicts["3 × capacity: accepted requests/s, as a share of the capacity"]


def test_times_count_from_when_a_request_was_due() -> None:
    assert percentile_ms(outcomes("encode", RIGHT, 3, 50), 99) == 50
    assert percentile_ms([], 99) is None
