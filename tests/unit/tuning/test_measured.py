from hypothesis import given
from hypothesis import strategies as st

from newshelf.tuning.points import Arithmetic, Computing, Point
from newshelf.tuning.search import PointMeasurement, dominates, frontier, measured
from newshelf.tuning.slo import parse_slo
from tests.unit.tuning.conftest import MakePoint, MakeRun, load

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
def test_the_frontier_is_what_a_naive_look_at_all_pairs_leaves(
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


def test_who_keeps_the_objective_ranks_by_throughput_the_rest_by_latency(run: MakeRun) -> None:
    order = [run(90, 40), run(80, 10), run(70, 55, missed=True), run(200, 60, missed=True)]
    assert sorted([order[at] for at in (2, 0, 3, 1)], key=PointMeasurement.rank) == order


def test_a_load_is_judged(point: MakePoint) -> None:
    judged = measured(point(), 5.0, load([20.0] * 100), parse_slo("p99=10ms"))
    assert (judged.per_second, judged.latency_ms, judged.meets) == (100, 20, False)
    assert judged.client_share == 0.2
