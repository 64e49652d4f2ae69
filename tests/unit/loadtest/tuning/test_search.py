"""The search, on servers that are formulas, and the comparison of runs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.slo import parse_slo
from loadtest.tuning.points import Arithmetic, Computing, Point, SearchSpace
from loadtest.tuning.search import PointMeasurement, dominates, frontier, judge, search
from tests.unit.loadtest.tuning.conftest import MakePoint, MakeRun, load

FULL_S = 8.0
Formula = Callable[[Point], tuple[float, float]]
SPACE = SearchSpace(
    tuple(
        Computing(workers, 2 // min(workers, 2), Arithmetic("onnxruntime", precision))
        for precision in ("fp32", "int8")
        for workers in (1, 2, 3)
    ),
    (1, 4, 8, 16),
    (1, 3, 10),
)


@dataclass
class Machine:
    """Keeps what was run, and judges by one latency."""

    formula: Formula
    most_ms: float
    runs: list[tuple[Point, float]] = field(default_factory=list)

    def __call__(self, point: Point, seconds: float) -> PointMeasurement:
        self.runs.append((point, seconds))
        per_second, latency_ms = self.formula(point)
        missed = ("late",) if latency_ms > self.most_ms else ()
        return PointMeasurement(point, seconds, per_second, latency_ms, missed)

    @property
    def points(self) -> set[Point]:
        return {point for point, _ in self.runs}


def plain(point: Point) -> tuple[float, float]:
    """int8 doubles it, each worker adds some, batches help up to 8, delays only cost."""
    computing = point.computing
    per_second = 100.0 * (2 if computing.arithmetic.precision == "int8" else 1)
    per_second *= {1: 1.0, 2: 1.2, 3: 1.3}[computing.workers]
    per_second *= {1: 0.6, 4: 0.9, 8: 1.0, 16: 1.0}[point.batch_size]
    return per_second, 8000 / per_second + point.delay_ms + point.batch_size


def test_the_best_that_meets_the_slo_is_found_with_few_points() -> None:
    machine = Machine(plain, most_ms=60)
    found = search(SPACE, machine, FULL_S)
    best = found.best.point
    assert best.computing == Computing(3, 1, Arithmetic("onnxruntime", "int8"))
    assert (best.batch_size, best.delay_ms) == (8, 1)
    assert found.best.seconds == FULL_S
    assert found.total == 72
    assert len(machine.points) <= 30
    assert found.total - len(found.runs) == 72 - len(machine.points)


def test_no_run_is_repeated_and_few_are_long() -> None:
    machine = Machine(plain, most_ms=60)
    search(SPACE, machine, FULL_S)
    assert max(Counter(machine.runs).values()) == 1
    long = [point for point, seconds in machine.runs if seconds == FULL_S]
    assert 1 <= len(long) <= 4
    assert {seconds for _, seconds in machine.runs} <= {2.0, 4.0, 8.0}


def test_the_slo_takes_precedence_over_throughput() -> None:
    def batches_cost_time(point: Point) -> tuple[float, float]:
        return 100.0 + 10 * point.batch_size, 5.0 * point.batch_size

    found = search(SPACE, Machine(batches_cost_time, most_ms=45), FULL_S)
    assert (found.best.meets, found.best.point.batch_size) == (True, 8)


def test_if_none_meets_the_slo_the_lowest_latency_is_best() -> None:
    found = search(SPACE, Machine(plain, most_ms=1), FULL_S)
    assert not found.best.meets
    assert found.best.latency_ms == min(run.latency_ms for run in found.runs)


def test_dominated_computings_get_no_further_runs() -> None:
    machine = Machine(plain, most_ms=60)
    search(SPACE, machine, FULL_S)
    slow = [p for p in machine.points if p.computing.arithmetic.precision == "fp32"]
    assert all(SPACE.middle(point.computing) == point for point in slow)


def test_beyond_a_step_that_made_it_worse_nothing_is_run() -> None:
    computing = SPACE.computing[0]
    space = SearchSpace((computing,), (2, 4, 8, 16), (1, 3, 10, 30))

    def longer_is_worse(point: Point) -> tuple[float, float]:
        return 100.0 - point.delay_ms, 10.0 * point.delay_ms + point.batch_size

    machine = Machine(longer_is_worse, most_ms=12)
    search(space, machine, FULL_S)
    ran = {(point.batch_size, point.delay_ms) for point in machine.points}
    # 3 ms missed what 1 ms kept, so of the longer delays none was run but for the middle.
    assert (2, 1) in ran
    assert {delay for _, delay in ran - {(8, 3)}} <= {1, 3}


def test_a_batch_of_one_is_run_with_one_delay() -> None:
    machine = Machine(plain, most_ms=60)
    search(SPACE, machine, FULL_S)
    assert {point.delay_ms for point in machine.points if point.batch_size == 1} == {1}


def test_points_that_cannot_be_served_do_not_end_the_search() -> None:
    def some_fail(point: Point) -> tuple[float, float]:
        fails = point.computing.arithmetic.precision == "int8" or point.batch_size == 16
        return (0.0, float("inf")) if fails else plain(point)

    found = search(SPACE, Machine(some_fail, most_ms=200), FULL_S)
    assert found.best.point.computing.arithmetic.precision == "fp32"
    assert found.best.per_second > 0


def test_when_the_finalists_promised_too_much_the_next_are_run_for_the_full_time() -> None:
    machine = Machine(plain, most_ms=60)

    def disappoints(point: Point, seconds: float) -> PointMeasurement:
        run = machine(point, seconds)
        is_fast = point.batch_size > 1
        return replace(run, missed=("late",)) if is_fast and seconds == FULL_S else run

    found = search(SPACE, disappoints, FULL_S)
    assert (found.best.meets, found.best.point.batch_size) == (True, 1)
    assert found.best.seconds == FULL_S


@pytest.mark.parametrize("most_ms", [1, 1000])
def test_one_point_alone_is_run_for_the_full_time(most_ms: float) -> None:
    space = SearchSpace(SPACE.computing[:1], (4,), (3,))
    machine = Machine(plain, most_ms)
    found = search(space, machine, FULL_S)
    assert machine.runs == [(found.best.point, FULL_S)]
    assert found.total == 1


POINT = Point(Computing(1, 1, Arithmetic("onnxruntime", "fp32")), 1, 1)
runs = st.lists(
    st.builds(
        PointMeasurement,
        point=st.just(POINT),
        seconds=st.just(1.0),
        per_second=st.integers(0, 6).map(float),
        latency_ms=st.integers(1, 6).map(float),
        missed=st.sampled_from([(), ("late",)]),
    ),
    max_size=12,
)


@given(runs)
def test_the_frontier_equals_a_comparison_of_all_pairs(
    all_runs: list[PointMeasurement],
) -> None:
    def better(a: PointMeasurement, b: PointMeasurement) -> bool:
        return (
            a.per_second >= b.per_second
            and a.latency_ms <= b.latency_ms
            and (a.per_second, a.latency_ms) != (b.per_second, b.latency_ms)
        )

    naive = [
        one for one in all_runs if one.per_second and not any(better(b, one) for b in all_runs)
    ]
    kept = frontier(all_runs)
    assert sorted(map(id, kept)) == sorted(map(id, naive))
    assert [one.latency_ms for one in kept] == sorted(one.latency_ms for one in kept)


@given(runs)
def test_a_margin_leaves_more(all_runs: list[PointMeasurement]) -> None:
    assert set(map(id, frontier(all_runs))) <= set(map(id, frontier(all_runs, 0.3)))


def test_noise_dominates_nothing(run: MakeRun) -> None:
    assert dominates(run(104, 10), run(100, 10))
    assert not dominates(run(104, 10), run(100, 10), 0.05)
    assert dominates(run(106, 10), run(100, 10), 0.05)
    assert dominates(run(100, 9), run(100, 10), 0.05)
    # Better in one, worse in the other: both stay.
    assert not dominates(run(200, 11), run(100, 10), 0.05)
    assert not dominates(run(100, 10), run(100, 10))


def test_runs_that_meet_the_slo_rank_by_throughput_others_by_latency(run: MakeRun) -> None:
    order = [run(90, 40), run(80, 10), run(70, 55, missed=True), run(200, 60, missed=True)]
    assert sorted([order[at] for at in (2, 0, 3, 1)], key=PointMeasurement.rank) == order


def test_a_load_is_judged(point: MakePoint) -> None:
    judged = judge(point(), 5.0, load([20.0] * 100), parse_slo("p99=10ms"))
    assert (judged.per_second, judged.latency_ms, judged.meets) == (100, 20, False)
    assert judged.client_share == 0.2
