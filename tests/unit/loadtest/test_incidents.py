"""When it happened, what was lost, how long recovery took."""

import numpy as np
import pytest

from loadtest.incidents import Incident, baseline, incidents, worker_changes
from loadtest.timeline import Timeline
from tests.unit.loadtest.made_records import (
    made_record,
    made_second,
    queue_latencies_ms,
    queue_record,
    sample,
)

QUIET = np.linspace(8, 12, 40).tolist()


def quiet(seconds):
    return {second: made_second(second, QUIET) for second in range(seconds)}


def found(load, server=(), seconds=None, **further):
    record = made_record(list(load.values()), server=server, seconds=seconds, **further)
    return incidents(Timeline.of(record))


def test_a_quiet_run_has_none():
    assert found(quiet(20), [sample(at, {"encoder": 7}) for at in range(20)]) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_queue_is_no_incident(seed):
    record = queue_record(50, 60, seed=seed, noise=0.3, drift=0.1)
    assert incidents(Timeline.of(record)) == []


def test_errors_are_counted_and_the_recovery_is_timed():
    load = quiet(20)
    load[5] = made_second(5, QUIET[:10], errors={"503": 20}, dropped=3)
    load[6] = made_second(6, [], errors={"503": 10, "ConnectionRefusedError": 4})
    load[8] = made_second(8, QUIET, errors={"timeout": 2})
    [one] = found(load)
    assert one == Incident(
        start_s=5,
        end_s=9,
        recovered=True,
        signs=("requests failed",),
        errors={"503": 30, "ConnectionRefusedError": 4, "timeout": 2},
        dropped=3,
        delayed=0,
        worst_ms=pytest.approx(12, rel=1e-2),
    )
    assert (one.recovery_s, one.lost) == (4, 39)


def test_two_that_are_far_apart_and_one_that_the_run_ended_in():
    load = quiet(20)
    for second in (3, 18):
        load[second] = made_second(second, QUIET, errors={"500": 4})
    first, second = found(load)
    assert (first.start_s, first.recovery_s) == (3, 1)
    assert (second.start_s, second.end_s, second.recovery_s) == (18, 19, None)


def test_errors_that_are_usual_are_no_incident():
    load = {second: made_second(second, QUIET, errors={"422": 10}) for second in range(20)}
    assert found(load) == []
    load[7] = made_second(7, QUIET, errors={"422": 10, "503": 30})
    [one] = found(load)
    assert (one.start_s, one.errors) == (7, {"422": 10, "503": 30})


def test_a_stall_of_one_second_is_seen_with_its_backlog():
    """A server that stands still from 10 s to 11 s; the latencies are those of the queue."""
    arrivals = np.sort(np.random.default_rng(3).uniform(0, 30, 1500))
    starts_during = (arrivals >= 10) & (arrivals < 11)
    service = np.full(len(arrivals), 0.01)
    service[np.flatnonzero(starts_during)[0]] += 1.0
    latencies = queue_latencies_ms(arrivals, service)
    load = {
        second: made_second(second, latencies[arrivals.astype(int) == second].tolist())
        for second in range(30)
    }
    record = made_record(list(load.values()))
    [one] = incidents(Timeline.of(record))
    slow = baseline(Timeline.of(record)).slow_ms
    assert one.start_s == 10
    assert one.signs == ("responses were slow",)
    assert one.delayed == pytest.approx((latencies > slow).sum(), abs=2)
    assert one.worst_ms == pytest.approx(latencies.max(), rel=2e-3)
    # At 50 requests/s of 10 ms, half of the time is left to work off a second's backlog.
    assert one.recovery_s == pytest.approx(2, abs=1)


def test_a_worker_that_was_replaced_is_named_at_its_moment():
    pids = [41] * 6 + [42] * 6
    server = [sample(at + 0.4, {"encoder": pid, "recommender": 9}) for at, pid in enumerate(pids)]
    [one] = found(quiet(12), server)
    assert (one.start_s, one.recovery_s, one.lost) == (6, 1, 0)
    assert one.signs == ("worker 9000 of encoder: process 41 ended, 42 is in its place",)


def test_a_worker_that_is_gone_for_a_while_is_told_twice():
    server = [
        sample(at, {"encoder": 41} if at < 4 else {} if at < 6 else {"encoder": 42})
        for at in range(12)
    ]
    changes = worker_changes(made_record([], server=server))
    assert [(change.at_s, change.ended, change.started) for change in changes] == [
        (4, 41, None),
        (6, None, 42),
    ]
    [one] = found(quiet(12), server)
    assert (one.start_s, one.end_s) == (4, 7)


def test_a_server_that_was_restarted():
    load = quiet(20)
    for second in range(4, 9):
        load[second] = made_second(second, [], errors={"ConnectionRefusedError": 40})
    server = [
        sample(at + 0.1, None if 4 <= at < 9 else {"encoder": 41 if at < 4 else 77})
        for at in range(20)
    ]
    [one] = found(load, server)
    assert (one.start_s, one.end_s, one.recovery_s, one.lost) == (4, 10, 6, 200)
    assert one.signs == (
        "requests failed",
        "the server was unreachable",
        "worker 9000 of encoder: process 41 ended, 77 is in its place",
    )


def test_clients_that_wait_send_little_when_the_server_stands_still():
    load = quiet(20)
    del load[8], load[9]
    assert [one.start_s for one in found(load, loop="closed")] == [8]
    assert found(load, loop="open") == []
