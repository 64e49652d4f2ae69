"""Rollouts as they happen: real versions, a real gateway and controller, simulated shoppers.

One live, told in order: it begins with a version that ranks the wrong way round, promotes the
trained one, and rolls the others back.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from newshelf.cli.pipeline import settings_from
from newshelf.pipeline.workspace import Workspace
from newshelf.rollout.versions import PromotedFile, TorchServeVersions
from newshelf.store.aggregates import team_credits
from tests.e2e.rollouts import Shop, check_record, open_shop, plan_of

pytestmark = pytest.mark.xdist_group("rollouts")

SHADOW = {
    "min_seconds": 3,
    "max_seconds": 120,
    "min_requests": 40,
    "most_error_share": 0.2,
    "most_p99_ms": 7000,
}


@pytest.fixture(scope="module")
def live(
    packed: Workspace, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("rollouts")
    with open_shop(packed, settings_from(settings_file), folder) as opened:
        yield opened


def versions(live: Shop) -> TorchServeVersions:
    return TorchServeVersions(live.state.directory, live.workspace.model_store, {"k": 5})


def test_a_better_version_goes_from_the_shadow_to_everybody(live: Shop) -> None:
    assert versions(live).default() == "old"
    live.start("better", plan_of("old", live.own, shadow=SHADOW))
    with live.shoppers("better") as shoppers:
        state = live.wait_for("better", "promoted", "paused", "rolled_back", "aborted")
    assert state.phase == "promoted", state.reason
    assert shoppers.failed == []
    assert live.told("better") == [
        "draft", "shadow", "ramp 0", "ramp 1", "promoting", "promoted",
    ]  # fmt: skip
    check_record(live.store, shoppers, "better")
    assert versions(live).default() == live.own
    promoted = PromotedFile(live.workspace.promoted).read()
    assert promoted is not None
    assert (promoted.version, promoted.before) == (live.own, "old")
    # Until the split's end only the units of its share saw the new version.
    split = {one.variant: set() for one in live.store.exposures("better")}
    for answer in live.store.exposures("better"):
        split[answer.variant].add(answer.model_version)
    assert split["control"] == {"old"}
    assert split["default"] == {"old"}
    assert split["challenger"] == {live.own}
    # Behind a "+" is the live shelf's last change.
    answers = [one for one in live.store.exposures() if one.model_version == "old"]
    assert {one.index_version.partition("+")[0] for one in answers} == {"of-old"}
    assert "better" in live.run("status", "better")


@pytest.mark.parametrize(
    ("challenger", "changes", "guardrail"),
    [
        ("slow", {"guardrails": [{"metric": "p99_ms", "most": 900}]}, "p99_ms"),
        ("fails", {}, "error_rate"),
        ("worse", {}, "ctr"),
    ],
)
def test_a_bad_version_is_rolled_back_by_what_is_wrong_with_it(
    live: Shop, challenger: str, changes: dict[str, object], guardrail: str
) -> None:
    live.start(challenger, plan_of(live.own, challenger, **changes))
    with live.shoppers(challenger) as shoppers:
        state = live.wait_for(challenger, "rolled_back", "paused", "promoted", "aborted")
    assert state.phase == "rolled_back", state.reason
    assert state.reason.startswith(guardrail), state.reason
    told = live.told(challenger)
    assert told[:2] == ["draft", "ramp 0"]
    assert told[-2:] == ["rolling_back", "rolled_back"]
    if challenger != "worse":
        # Within its step.
        assert "ramp 1" not in told
    assert shoppers.failed == []
    check_record(live.store, shoppers, challenger)
    assert versions(live).default() == live.own
    assert live.store.rollouts.traffic().splits == ()


def test_interleaving_finds_the_worse_ranking_in_answers_made_of_both(live: Shop) -> None:
    preference = [{"metric": "preference", "minimum_effect": 0.2}]
    live.start("drafted", plan_of(live.own, "worse", interleaving=True, success=preference))
    with live.shoppers("drafted") as shoppers:
        state = live.wait_for("drafted", "rolled_back", "paused", "promoted", "aborted")
    assert state.phase == "rolled_back", state.reason
    assert state.reason.startswith("preference"), state.reason
    assert shoppers.failed == []
    check_record(live.store, shoppers, "drafted")
    answers = [one for one in live.store.exposures("drafted") if one.variant == "interleaved"]
    drafted = [item for answer in answers for item in answer.items]
    teams = Counter(item.source.partition("/")[0] for item in drafted)
    assert set(teams) == {"control", "challenger"}
    # A coin for each round: half of the products are each team's, but for short answers' ends.
    assert 0.4 < teams["challenger"] / teams.total() < 0.6
    assert all(0 < item.propensity <= 1 for item in drafted)
    assert any(item.propensity < 1 for item in drafted)
    with live.store.database.reading() as connection:
        clicks = team_credits(connection, "drafted")
    assert clicks["control"].sum() > clicks["challenger"].sum()
    assert versions(live).default() == live.own


def test_what_does_not_fit_is_refused_and_changes_nothing(live: Shop, tmp_path: Path) -> None:
    before = [(row.name, row.revision) for row in live.store.rollouts.all()]
    for plan, message in (
        (plan_of(live.own, "missing"), "version missing is not in the model store"),
        (plan_of("worse", live.own), f"control is worse, but {live.own} is served"),
        (plan_of(live.own, "worse", success=[{"metric": "charm", "minimum_effect": 1}]), "metric"),
        ({"challenger": "worse"}, "control: is missing"),
    ):
        path = tmp_path / "bad.yaml"
        path.write_text(json.dumps(plan))
        assert message in " ".join(live.run("start", str(path), code=2).split())
    live.run("resume", "better", code=2)
    live.run("status", "unheard-of", code=2)
    assert [(row.name, row.revision) for row in live.store.rollouts.all()] == before


def test_one_command_goes_back_and_what_lost_is_unloaded(live: Shop) -> None:
    live.run("rollback", "better")
    state = live.wait_for("better", "rolled_back")
    assert state.reason == "aborted by hand"
    assert versions(live).default() == "old"
    end_s = time.monotonic() + 120
    while versions(live).loaded() != {"old"} and time.monotonic() < end_s:
        time.sleep(0.5)
    assert versions(live).loaded() == {"old"}
