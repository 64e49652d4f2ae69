"""What a person may do to a rollout."""

from datetime import timedelta

import pytest

from newshelf.errors import RolloutError
from newshelf.rollout.operations import command
from tests.unit.rollout.conftest import (
    AT,
    PLAN,
    plan,
    state,
)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("start", {"phase": "draft"}, "shadow"),
        ("pause", {"phase": "shadow"}, "paused"),
        ("pause", {"phase": "ramp"}, "paused"),
        ("pause", {"phase": "promoting"}, "paused"),
        ("resume", {"phase": "paused", "resumes_to": "ramp"}, "ramp"),
        ("resume", {"phase": "paused", "resumes_to": "shadow"}, "shadow"),
        ("resume", {"phase": "paused", "resumes_to": "promoting"}, "promoting"),
        ("promote", {"phase": "ramp"}, "promoting"),
        ("promote", {"phase": "paused", "resumes_to": "ramp"}, "promoting"),
        ("abort", {"phase": "draft"}, "aborted"),
        ("abort", {"phase": "ramp"}, "aborted"),
        ("abort", {"phase": "paused", "resumes_to": "promoting"}, "aborted"),
        ("abort", {"phase": "promoted"}, "rolling_back"),
    ],
)
def test_commands(name: str, before: dict[str, str], after: str) -> None:
    changed = command(name, PLAN, state(**before), AT + timedelta(1))
    assert changed.phase == after
    assert (changed.revision, changed.since) == (1, AT + timedelta(1))
    assert (changed.resumes_to is not None) == (after == "paused")


def test_without_a_shadow_phase_the_ramp_starts_at_once() -> None:
    assert command("start", plan(shadow=None), state("draft"), AT).phase == "ramp"


@pytest.mark.parametrize(
    ("name", "before", "told"),
    [
        ("start", {"phase": "ramp"}, "it is ramp; start is for draft"),
        ("resume", {"phase": "ramp"}, "resume is for paused"),
        ("pause", {"phase": "paused", "resumes_to": "ramp"}, "it is paused in ramp"),
        ("abort", {"phase": "rolled_back"}, "cannot abort"),
        ("promote", {"phase": "shadow"}, "has seen the challenger"),
        ("promote", {"phase": "paused", "resumes_to": "shadow"}, "no shopper has seen"),
        ("promote", {"phase": "draft"}, "promote is for ramp, paused"),
    ],
)
def test_commands_that_do_not_fit_are_refused(name: str, before: dict[str, str], told: str) -> None:
    with pytest.raises(RolloutError) as raised:
        command(name, PLAN, state(**before), AT)
    assert told in raised.value.message


@pytest.mark.parametrize(
    ("name", "before"),
    [("pause", "ramp"), ("resume", "paused"), ("promote", "ramp"), ("abort", "ramp")],
)
def test_the_reason_names_who_gave_a_command(name: str, before: str) -> None:
    begun = state(before, resumes_to="ramp" if before == "paused" else None)
    assert command(name, PLAN, begun, AT).reason.endswith(" by hand")
    assert command(name, PLAN, begun, AT, "the key ann").reason.endswith(" by the key ann")
