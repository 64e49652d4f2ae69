"""Scenarios of a circuit breaker, on a clock of its own."""

from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.gateway.models import Breaker, BreakerState

OPEN_S = 5.0


def tripped() -> Breaker:
    breaker = Breaker(0.5, 4, OPEN_S)
    for _ in range(4):
        assert breaker.allow(0)
        breaker.failed(0)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_a_few_failures_among_many_successes_change_nothing() -> None:
    breaker = Breaker(0.5, 4, OPEN_S)
    for number in range(100):
        assert breaker.allow(number)
        if number % 4 == 0:
            breaker.failed(number)
        else:
            breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_the_first_failures_alone_do_not_open_it() -> None:
    breaker = Breaker(0.5, 4, OPEN_S)
    for _ in range(3):
        breaker.failed(0)
    assert breaker.state is BreakerState.CLOSED


def test_half_of_the_last_requests_open_it_and_nothing_passes() -> None:
    breaker = Breaker(0.5, 4, OPEN_S)
    for fails in (False, True, False, True):
        breaker.failed(0) if fails else breaker.succeeded()
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allow(OPEN_S - 0.1)


def test_after_a_while_one_request_tries_it_and_closes_it() -> None:
    breaker = tripped()
    assert breaker.allow(OPEN_S)
    assert not breaker.allow(OPEN_S)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    # What was before is forgotten: it takes four new failures.
    breaker.failed(OPEN_S)
    assert breaker.allow(OPEN_S)


def test_a_try_that_fails_opens_it_for_as_long_again() -> None:
    breaker = tripped()
    assert breaker.allow(OPEN_S)
    breaker.failed(OPEN_S)
    assert not breaker.allow(2 * OPEN_S - 0.1)
    assert breaker.allow(2 * OPEN_S)


def test_a_try_that_nobody_waited_for_lets_another_one_try() -> None:
    breaker = tripped()
    assert breaker.allow(OPEN_S)
    breaker.forgotten()
    assert breaker.allow(OPEN_S)


def test_answers_from_before_it_opened_change_nothing() -> None:
    breaker = tripped()
    breaker.succeeded()
    breaker.failed(1)
    assert breaker.state is BreakerState.OPEN
    assert breaker.allow(OPEN_S)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["ok", "fail", "forget", "wait"])))
def test_it_never_stays_shut_for_longer_than_it_says(events: list[str]) -> None:
    breaker, now_s = Breaker(0.5, 3, OPEN_S), 0.0
    for event in events:
        if event == "wait":
            now_s += OPEN_S
            # Whatever happened: after the pause, somebody may try.
            assert breaker.allow(now_s)
            breaker.forgotten()
        elif breaker.allow(now_s):
            match event:
                case "ok":
                    breaker.succeeded()
                case "fail":
                    breaker.failed(now_s)
                case _:
                    breaker.forgotten()
