"""What people are shown of a rollout: status in the terminal, and the report's page."""

import json
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from newshelf.rollout.history import read_history, read_snapshot, show_rollout
from newshelf.rollout.operations import change_rollout
from newshelf.rollout.report import write_report
from newshelf.store.write import WriteBatch
from tests.unit.rollout.controller.conftest import NAME, World


def go(world: World, looks: int, **challenger: float) -> None:
    controller = world.controller()
    for _ in range(looks):
        world.shop(**challenger)
        world.pass_time(6)
        controller.tick(NAME)


def words(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def page_of(world: World, path: Path) -> str:
    write_report(world.store, world.store.rollouts.get(NAME), path)
    return path.read_text()


def status_of(world: World) -> str:
    console = Console(record=True, width=160)
    kept = world.store.rollouts.last_snapshot(NAME)
    look = None if kept is None else read_snapshot(kept)
    show_rollout(console, world.store.rollouts.get(NAME), look)
    return console.export_text()


def test_the_page_of_a_promotion_tells_everything_and_needs_nothing(
    world: World, tmp_path: Path
) -> None:
    world.plan = world.plan.model_copy(update={"overrides": {"tester-77": "challenger"}})
    world.start()
    go(world, 9)
    assert world.state.phase == "promoted"
    page = page_of(world, tmp_path / "page.html")
    # Shares, and one metric.
    assert page.count('src="data:image/png;base64,') == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    told = words(page)
    for part in (
        "control 1 · challenger 2",
        "Promoted since",
        "in shadow: 160 copies were answered within the limits",
        "10 %",
        "50 %",
        "error_rate (most)",
        "kept",
        "better",
        "Units that saw both: 0.",
        "ramp[1].percent 50",
    ):
        assert part in told
    # Neither shoppers nor testers.
    assert "unit-1" not in page
    assert "tester-77" not in page


def test_the_page_of_a_rollback_shows_which_guardrail_broke(world: World, tmp_path: Path) -> None:
    world.start()
    go(world, 2)
    go(world, 4, error=0.6)
    assert world.state.phase == "rolled_back"
    told = words(page_of(world, tmp_path / "page.html"))
    assert "The first broke at" in told
    assert "When it broke" in told
    assert re.search(r"error_rate \(most\) 0\.00% \d+\.\d+% .* broken", told)


def test_a_rollout_that_has_only_been_planned_has_a_page_too(world: World, tmp_path: Path) -> None:
    world.start()
    page = page_of(world, tmp_path / "page.html")
    assert page.count('src="data:image/png;base64,') == 1
    assert "not analysed anything yet" in page


def test_the_history_has_no_gap_and_its_shares_add_up(world: World) -> None:
    world.start()
    go(world, 9)
    periods = read_history(world.store, world.store.rollouts.get(NAME)).periods
    for before, after in pairwise(periods):
        assert before.ends == after.begins
    for one in periods:
        assert one.control + one.challenger + one.default == pytest.approx(1)
    assert [one.challenger for one in periods] == pytest.approx([0, 0, 0.1, 0.5, 0.5, 1])


def test_status_tells_phase_step_share_intervals_guardrails_and_reason(world: World) -> None:
    world.start()
    assert "not looked at it yet" in status_of(world)
    go(world, 1)
    assert "copied to the challenger" in status_of(world)
    go(world, 2)
    shown = status_of(world)
    for part in (
        f"{NAME}: ramp",
        "control 1, challenger 2",
        "step 2 of 2: 50 % of the units see the challenger, as many are control",
        "at 10 %: no harm",
        "error_rate (most)",
        "300.0 ms",
        "sample ratio as it should be",
    ):
        assert part in shown
    change_rollout(world.store, NAME, "pause", clock=world.clock)
    assert "paused in ramp" in status_of(world)


def test_text_in_square_brackets_is_shown_as_it_is(world: World) -> None:
    world.versions.broken["2"] = "2 answered 500: [red]broken[/red]"
    world.start()
    world.pass_time(100)
    world.controller().tick(NAME)
    assert "[red]broken[/red]" in status_of(world)


def test_who_has_too_many_answers_is_named(world: World, tmp_path: Path) -> None:
    """A monitor asks all day; ordinary shoppers are never named."""
    world.start()
    go(world, 3)
    (split,) = world.store.rollouts.traffic().splits
    quiet = {"ctr": 0, "error": 0, "latency_ms": 1}
    world.store.write(
        WriteBatch(exposures=[world._answer("[Monitor]-1", split, quiet) for _ in range(900)])
    )
    go(world, 1)
    told = words(page_of(world, tmp_path / "page.html"))
    for text in (told, status_of(world)):
        assert re.search(r"nit \[Monitor\]-1 has \d\d% of the answers of", text)
        assert "unit-1 " not in text
    assert "99.9 % of all units" in told


def test_what_an_earlier_version_has_seen_is_still_shown(world: World, tmp_path: Path) -> None:
    world.start()
    go(world, 3)
    row = world.store.rollouts.last_snapshot(NAME)
    assert row is not None
    snapshot = json.loads(row.snapshot)
    (ctr,) = snapshot["analysis"]["metrics"]
    for name in ("silence", "reason", "capped"):
        del ctr[name]
    del snapshot["analysis"]["heavy_units"]
    ctr |= {"silent": False, "verdict": "unknown", "effect": "NaN", "low": "-Infinity"}
    snapshot["analysis"]["sample_ratio"]["chi_square_p"] = 0.3
    world.store.rollouts.add_snapshot(NAME, json.dumps(snapshot))
    assert "unknown" in status_of(world)
    told = words(page_of(world, tmp_path / "page.html"))
    assert "inf" not in told.replace("information", "")
