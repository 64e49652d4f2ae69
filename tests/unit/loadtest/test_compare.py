"""Equal versions are not told apart; a slower one is found."""

import functools

import numpy as np
import pytest
from scipy import stats

from loadtest.compare import block_seconds, compare, holm, mean_difference
from loadtest.timeline import Timeline
from newshelf.errors import SettingsError
from tests.unit.loadtest.made_records import made_record, made_second, queue_record

TRIALS = 20


def pair(trial, *, slower=1.0, same_arrivals=True, seconds=120, rate=60.0, **further):
    """Two runs whose servers drift, each in its own way, for seconds at a time."""
    made = {"noise": 0.2, "drift": 0.03, **further}
    arrivals = 3 * trial if same_arrivals else None
    a = recorded(rate, seconds, seed=3 * trial + 1, arrivals_seed=arrivals, **made)
    b = recorded(
        rate, seconds, seed=3 * trial + 2, arrivals_seed=arrivals, service_s=0.01 * slower, **made
    )
    return a, b


recorded = functools.cache(queue_record)


def words(**further):
    return [compare(*pair(trial, **further)).word for trial in range(TRIALS)]


@pytest.mark.parametrize("same_arrivals", [True, False])
def test_equal_versions_are_not_told_apart_in_19_of_20_trials(same_arrivals):
    found = words(same_arrivals=same_arrivals)
    assert found.count("not told apart") >= 19


def test_a_version_slowed_by_10_percent_is_found():
    assert words(slower=1.1).count("worse") >= 19


def test_a_version_that_is_10_percent_faster_is_found():
    assert words(slower=0.9).count("better") >= 19


def test_the_verdict_names_what_led_to_it():
    result = compare(*pair(1, slower=1.2))
    assert result.sentence().startswith("B is worse than A: mean +")
    assert (result.blocks, result.block_seconds, result.notes) == (30, 4, ())
    [p50] = [one for one in result.overall if one.metric == "p50"]
    assert p50.interval[0] < p50.change < p50.interval[1]
    assert 0.2 < p50.change < 0.7
    assert p50.b / p50.a == pytest.approx(1 + p50.change, rel=0.1)
    assert result.kinds["recommend history"][1].word == "worse"


def test_a_run_is_not_told_apart_from_itself():
    record, _ = pair(1)
    result = compare(record, record)
    assert "not told apart" in result.sentence()
    assert all(one.p_value == 1 for one in result.overall)


def steady(latency_ms, *, failed=0, **further):
    load = [
        made_second(at, [latency_ms + 0.1 * (at % 3)] * (100 - failed), errors={"503": failed})
        for at in range(16)
    ]
    return made_record(load, **further)


def test_more_errors_are_worse_even_when_answers_are_faster():
    result = compare(steady(10), steady(5, failed=4))
    assert result.word == "worse"
    by_metric = {one.metric: one for one in result.overall}
    assert by_metric["error rate"].word == "worse"
    assert by_metric["error rate"].change == pytest.approx(0.04)
    assert by_metric["p50"].word == "better"
    assert "error rate +4.00% points" in result.sentence()


def test_a_difference_of_1_percent_is_too_small_however_sure_it_is():
    result = compare(steady(10), steady(10.1))
    assert result.word == "not told apart"
    assert result.overall[0].p_value < 1e-3


def test_clients_that_wait_are_compared_by_throughput_too():
    def run(count):
        load = [made_second(at, [10] * (count + at % 3)) for at in range(16)]
        return made_record(load, loop="closed")

    result = compare(run(100), run(120))
    assert result.word == "better"
    [throughput] = [one for one in result.overall if one.metric == "throughput"]
    assert throughput.change == pytest.approx(0.2, abs=0.01)


def test_blocks_in_which_nothing_was_answered_have_no_latency():
    def run(dead):
        return made_record(
            [
                made_second(
                    at, [] if at in dead else [10] * 100, errors={"503": 100 * (at in dead)}
                )
                for at in range(16)
            ]
        )

    result = compare(run(()), run((3, 4)))
    assert result.overall[0].change == pytest.approx(0, abs=1e-9)
    assert compare(run(()), run(tuple(range(10)))).overall[0].change is None


@pytest.mark.parametrize(
    ("further", "told"),
    [
        ({"scenario": "spike"}, "scenario is 'steady' in A and 'spike' in B"),
        ({"loop": "closed"}, "loop is 'open' in A and 'closed' in B"),
        ({"settings": {"rate": 60.0, "seed": 7}}, "rate is 50.0 in A and 60.0 in B"),
        ({"seconds": 30}, "A took 16 s and B 30 s"),
    ],
)
def test_runs_under_another_load_are_refused(further, told):
    with pytest.raises(SettingsError) as raised:
        compare(steady(10), steady(10, **further))
    assert told in raised.value.message


def test_other_kinds_of_request_are_refused():
    other = made_record([made_second(at, [10], kind="bad") for at in range(16)])
    with pytest.raises(SettingsError, match="'recommend history' in A"):
        compare(steady(10), other)


def test_runs_that_are_too_short_are_refused():
    short = made_record([made_second(at, [10] * 100) for at in range(5)])
    with pytest.raises(SettingsError, match="5 s are too short"):
        compare(short, short)


def test_another_seed_and_a_busy_generator_are_noted():
    result = compare(
        steady(10), steady(10, settings={"rate": 50.0, "seed": 8}, limited="it was busy")
    )
    assert result.notes[0].startswith("the seeds differ")
    assert "B: it was busy" in result.notes[1]


@pytest.mark.parametrize(
    ("seconds", "per_second", "length"), [(60, 60, 2), (60, 1000, 2), (60, 20, 5), (600, 60, 20),
                                          (16, 2, 2), (20, 100, 1)]
)  # fmt: skip
def test_blocks_are_filled_but_not_too_few(seconds, per_second, length):
    record = made_record([made_second(at, [1.0] * per_second) for at in range(seconds)])
    timeline = Timeline.of(record)
    assert block_seconds(timeline, timeline) == length


def correlated(generator, length=30, coefficient=0.4):
    noise = generator.normal(size=length)
    series = np.empty(length)
    series[0] = noise[0]
    for at in range(1, length):
        series[at] = coefficient * series[at - 1] + noise[at]
    return series


@pytest.mark.parametrize("trimmed", [0.0, 0.2])
def test_the_interval_holds_the_mean_of_correlated_series_as_often_as_it_says(trimmed):
    generator = np.random.default_rng(5)
    misses = 0
    for _ in range(400):
        paired = mean_difference(correlated(generator), 0.95, trimmed)
        misses += not paired.low <= 0 <= paired.high
        assert (paired.p_value < 0.05) == (not paired.low <= 0 <= paired.high)
    # A plain t interval misses it in 17 % of such series.
    assert misses / 400 < 0.09


def test_without_correlation_it_is_yuens_test():
    """Mean of the middle, winsorised spread, h - 1 degrees of freedom, written out."""
    alternating = np.array([1.0, 9, 2, 8, 3, 7, 4, 6, 5, 100])
    paired = mean_difference(alternating, 0.95, 0.2)
    assert paired.mean == pytest.approx(np.mean([3, 4, 5, 6, 7, 8]))
    winsorised = np.clip(alternating, 3, 8)
    error = winsorised.std(ddof=1) / (0.6 * np.sqrt(10))
    assert paired.high - paired.mean == pytest.approx(stats.t.ppf(0.975, 5) * error)


def test_blocks_that_a_hiccup_hit_hide_no_difference():
    generator = np.random.default_rng(1)
    differences = generator.normal(0.1, 0.05, 20)
    differences[[4, 11]] += [3.0, -2.0]
    assert mean_difference(differences, 0.99).p_value > 0.1
    assert mean_difference(differences, 0.99, 0.2).p_value < 1e-3


def test_holm_by_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
