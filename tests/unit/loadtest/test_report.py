"""The pages and tables of runs, searches and comparisons."""

import json
import re

import pytest
from rich.console import Console

from loadtest.compare import compare, print_comparison, write_comparison
from loadtest.plots import all_batches, size_text
from loadtest.record import read_record
from loadtest.report import check_run, milliseconds, print_run, write_run
from loadtest.saturate import RateGoal, RateSearch, print_saturation, saturate, write_saturation
from loadtest.slo import LatencyLimit, Slo, SloSet
from tests.unit.loadtest.made_records import made_record, made_second, queue_record, sample

LIMITS = SloSet(Slo((LatencyLimit(99, 80.0),), 0.01), {"encode text": Slo((LatencyLimit(50, 9),))})


def full_run():
    """Two kinds of request, a bad second, a worker that is replaced and a look that failed."""
    load = []
    for at in range(12):
        errors = {"503": 30, "timeout": 1} if at == 5 else {}
        load.append(made_second(at, [5.0] * 40, errors=errors, dropped=2 if at == 5 else 0))
        load.append(made_second(at, [30.0] * 5, kind="encode text"))
    server = [
        None if at == 6 else {"encoder": 40 if at < 6 else 41, "recommender": 9} for at in range(12)
    ]
    samples = [
        sample(at + 0.5, pids, queue_ms=2.0, batch_sizes={1: 3, 5: 2}, batched=11)
        if pids
        else sample(at + 0.5, None)
        for at, pids in enumerate(server)
    ]
    return made_record(load, server=samples, settings={"rate": 50.0, "seed": 7})


def console():
    return Console(record=True, width=200)


def check_page(path):
    html = path.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html), "it needs something beside it"
    return html


def test_a_runs_page_holds_everything_and_its_record_reads_back(tmp_path):
    run = check_run(full_run(), LIMITS)
    html = check_page(write_run(run, tmp_path))
    for words in (
        "2 of 3 limits are broken: all error rate, encode text p50.",
        "5 s to 8 s",
        "30 × 503, 1 × timeout, 2 never sent",
        "process 40 ended, 41 is in its place",
        "Unreachable in 1 of 12 samples.",
        "The server, not the generator, was the limit.",
        "never sent: too many in flight",
    ):
        assert words in html, words
    assert html.count("data:image/png;base64,") == 7
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "batches.png", "errors.png", "latency.png", "percentiles.png", "queue.png",
        "throughput.png", "workers.png",
    ]  # fmt: skip
    assert read_record(tmp_path / "record.json") == run.record


def test_the_terminal_tells_which_limit_was_broken_by_how_much():
    told = console()
    print_run(check_run(full_run(), LIMITS), told)
    text = told.export_text()
    assert "✗ encode text: p50 is 30.0 ms" in text
    assert "at most 9.0 ms (21.0 ms, 23" in text
    assert re.search(r"recommend history +│ +513 +│ +40\.0 ", text)
    assert re.search(r"503 +│ +0 +│ +30 +│ +30 ", text)
    assert re.search(r"5 s to 8 s +│ +3 s +│ +33 ", text)


def test_a_busy_generator_is_told_before_anything_else(tmp_path):
    record = made_record([made_second(0, [5.0] * 10)], limited="the generator was the limit: slow")
    run = check_run(record, SloSet(Slo((LatencyLimit(99, 80.0),))))
    assert run.kept
    assert run.sentence().startswith("The generator was the limit: slow. All limits are met.")
    html = check_page(write_run(run, tmp_path))
    assert "The server, not the generator" not in html
    assert "None: no second differs" in html


def test_a_run_in_which_nothing_was_answered_has_a_page_too(tmp_path):
    load = [made_second(at, [], errors={"ConnectionRefusedError": 9}) for at in range(4)]
    run = check_run(made_record(load, server=[sample(1, None)]), LIMITS)
    assert not run.kept
    assert "all error rate" in check_page(write_run(run, tmp_path))


def test_a_run_without_limits():
    run = check_run(made_record([made_second(0, [5.0])]), None)
    assert (run.kept, run.sentence()) == (True, "No limits were given.")


def test_what_a_search_found(tmp_path):
    def measure(rate, seconds):
        return queue_record(rate, int(seconds), seed=int(rate * 1000), service_s=0.01)

    goal = RateGoal(LatencyLimit(99, 50.0))
    found = saturate(measure, goal, RateSearch(20.0, seconds=12, resolution=0.2))
    told = console()
    print_saturation(found, told)
    assert f"{found.rate:.1f} requests/s" in told.export_text()
    path = write_saturation(found, measure(found.rate, 12), tmp_path)
    html = check_page(path)
    assert "The server was the limit" in html
    assert "Last run: Latency" in html
    kept = json.loads((tmp_path / "saturation.json").read_text())
    assert kept["rate"] == found.rate
    assert len(kept["trials"]) == len(found.trials)
    assert read_record(tmp_path / "record.json").seconds == 12


def test_a_search_that_found_none_says_why(tmp_path):
    def measure(rate, seconds):
        return made_record([made_second(0, [], errors={"503": 5})])

    found = saturate(measure, RateGoal(LatencyLimit(99, 50.0)), RateSearch(1.0, seconds=1))
    told = console()
    print_saturation(found, told)
    assert "at 0.5/s: p99 is infinite" in told.export_text()
    assert (
        json.loads(
            (
                write_saturation(found, measure(1, 1), tmp_path).parent / "saturation.json"
            ).read_text()
        )["rate"]
        is None
    )


def test_what_a_comparison_found(tmp_path):
    a = queue_record(60, 60, seed=1, arrivals_seed=3, drift=0.02, noise=0.2)
    b = queue_record(60, 60, seed=2, arrivals_seed=3, drift=0.02, noise=0.2, service_s=0.012)
    found = compare(a, b)
    told = console()
    print_comparison(found, a, b, told)
    text = told.export_text()
    assert "B is worse than A: " in text
    assert re.search(r"p50, ms +│ +[\d.]+ +│ +[\d.]+ +│ +\+[\d.]+% .* < 0\.001 +│ +worse", text)
    html = check_page(write_comparison(found, a, b, tmp_path))
    assert "B is worse than A: " in html
    assert "blocks of 2 s" in html


def test_batch_sizes_in_words_and_those_above_the_bounds_together():
    samples = [
        sample(1, {"encoder": 1}, batch_sizes={1: 4, 12: 1}),
        sample(2, {"encoder": 1}, batch_sizes={5: 2, 16: 3}),
    ]
    found = all_batches(samples)
    assert found == {1: 4, 5: 2, 15: 4}
    assert [size_text(size) for size in found] == ["1", "3–5", "about 15"]


@pytest.mark.parametrize(
    ("value", "told"), [(0.1234, "0.123"), (12.345, "12.3"), (1234.5, "1,234"), (float("inf"), "–")]
)
def test_milliseconds_have_the_digits_that_say_something(value, told):
    assert milliseconds(value) == told


def verdicts(limits, *load):
    return check_run(made_record(load), limits).verdicts


def test_what_is_kept_and_what_is_broken_by_how_much():
    limits = SloSet(
        Slo((LatencyLimit(50, 20), LatencyLimit(99, 80)), 0.05, 10),
        {"encode text": Slo((LatencyLimit(99, 8),))},
    )
    load = [made_second(0, [10] * 50 + [100] * 50, errors={"503": 25})]
    found = {(one.scope, one.name): one for one in verdicts(limits, *load)}
    p50, p99 = found["all", "p50_ms"], found["all", "p99_ms"]
    assert p50.kept
    assert not p99.kept
    assert p99.excess == pytest.approx(20, rel=0.01)
    assert p99.excess_share == pytest.approx(0.25, rel=0.01)
    assert str(p99).startswith("all: p99 is 100.0 ms")
    assert "80.0 ms (20.0 ms, 25% above)" in str(p99)
    errors = found["all", "error_rate"]
    assert (errors.measured, errors.kept) == (0.2, False)
    assert "(15.00%, 300% above)" in str(errors)
    assert found["all", "throughput"].kept
    unsent = found["encode text", "p99_ms"]
    assert (unsent.kept, unsent.measured) == (True, None)
    assert "was not tested" in str(unsent)


def test_too_little_throughput_is_told_as_below():
    [slow] = verdicts(SloSet(Slo(throughput=200)), made_second(0, [1] * 50))
    assert not slow.kept
    assert str(slow).endswith("at least 200.00/s (150.00/s, 75% below)")


def test_where_nothing_was_answered_no_latency_is_kept():
    objective = Slo((LatencyLimit(99, 1e6),), 0.0)
    late, failed = verdicts(SloSet(objective), made_second(0, [], errors={"timeout": 3}))
    assert not late.kept
    assert "p99 is infinite" in str(late)
    assert (failed.measured, failed.excess_share) == (1.0, float("inf"))
    assert not any(one.kept for one in verdicts(SloSet(objective), made_second(0, [])))
