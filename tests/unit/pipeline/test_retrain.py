"""A retraining's steps, lock, resumption, rollout and pruning, with jobs that train nothing."""

import hashlib
import os
import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from export.retrain_report import write_report
from newshelf.config import RetrainSettings, RolloutSettings, Settings
from newshelf.errors import EvidenceError, RolloutError, SetupError, TrainingError
from newshelf.evaluation.types import Compared, GateResult
from newshelf.files import write_json
from newshelf.pipeline import retrain
from newshelf.pipeline.retrain import Retraining
from newshelf.pipeline.stages import Jobs, bring_up_to_date, catalog_files
from newshelf.pipeline.stages import plan_stages as stages_of
from newshelf.pipeline.workspace import Workspace, open_workspace
from newshelf.rollout.operations import change_rollout, start_rollout
from newshelf.rollout.plan import Plan
from newshelf.rollout.versions import PromotedFile
from newshelf.server.ports import Ports
from newshelf.server.process import write_plan
from newshelf.server.program import ControllerPlan
from newshelf.server.state import ServerState
from newshelf.server.torchserve import write_properties
from newshelf.serving.settings import read_version, write_version
from newshelf.store.store import EventStore
from tests.unit.pipeline.conftest import write_sources

DAY = 86_400
EVERY = ["train", "gate", "graphs", "precision", "archive"]
"""Jobs of a retraining, in order."""
BEGIN = 1_772_366_400


def write_shop(folder: Path, shoppers: int = 40) -> None:
    """Each shopper takes a product a day, the last one on the tenth day."""
    folder.mkdir()
    items = [(f"i{at}", f"Product {at}") for at in range(20)]
    pd.DataFrame(items, columns=["id", "title"]).to_parquet(folder / "items.parquet")
    rng = np.random.default_rng(0)
    events = [
        (f"u{shopper}", f"i{item}", "view", BEGIN + day * DAY)
        for shopper in range(shoppers)
        for day, item in enumerate(rng.choice(20, 10, replace=False))
    ]
    columns = ["user_id", "item_id", "event_type", "timestamp"]
    pd.DataFrame(events, columns=columns).to_parquet(folder / "events.parquet")


@dataclass
class World:
    """A served shop. Each training makes another version, and the gate gives a set result."""

    workspace: Workspace
    settings: Settings
    done: list[str] = field(default_factory=list)
    passes: bool = True
    broken: dict[str, BaseException] = field(default_factory=dict)
    """What a step raises, once."""

    def step(self, name: str) -> None:
        self.done.append(name)
        if name in self.broken:
            raise self.broken.pop(name)

    def jobs(self) -> Jobs:
        def train(workspace: Workspace, settings: Settings, inputs: str, out: Path) -> None:
            self.step("train")
            (out / "weights").write_text(f"{len(self.done)} {inputs}")
            write_json(out / "training.json", {"newest_event": BEGIN + 7 * DAY})

        def graphs(workspace: Workspace, settings: Settings, out: Path) -> None:
            self.step("graphs")
            weights = shutil.copy(workspace.checkpoint / "weights", out / "encoder.onnx")
            write_version(out, hashlib.sha256(weights.read_bytes()).hexdigest()[:6])

        def precision(workspace: Workspace, settings: Settings, out: Path) -> None:
            self.step("precision")

        def archive(
            workspace: Workspace, settings: Settings, source: Path, out: Path
        ) -> list[Path]:
            self.step("archive")
            weights, version = (source / "encoder.onnx").read_bytes(), read_version(source)
            workspace.model_store.mkdir(exist_ok=True)
            paths = [
                workspace.model_store / f"{name}-{version}.mar"
                for name in ("encoder", "recommender")
            ]
            for path in paths:
                path.write_bytes(weights)
            return paths

        def unexpected(*_: Any) -> None:
            raise AssertionError("a retraining draws no sample and runs no evaluation")

        return Jobs(unexpected, train, unexpected, graphs, precision, archive)

    def gate(self, served: Path, place: Workspace, *_: Any) -> GateResult:
        self.step("gate")
        assert served.joinpath("weights").exists()
        assert place.checkpoint.joinpath("weights").exists()
        compared = Compared(
            name="newest", cases=40, served=0.2, candidate=0.4, interval=(0.1, 0.3), p_value=0.01
        )  # fmt: skip
        reason = "it is better" if self.passes else "it is worse"
        return GateResult(passed=self.passes, reason=reason, split="cases", compared=(compared,))

    def retraining(self, **changes: Any) -> Retraining:
        wanted = self.settings.retrain.model_copy(update=changes)
        settings = self.settings.model_copy(update={"retrain": wanted})
        return Retraining(self.workspace, settings, self.jobs(), self.gate, Console(stderr=True))

    def run(self, **changes: Any) -> retrain.RetrainRun:
        self.done.clear()
        return self.retraining(**changes).run()

    def store(self) -> EventStore:
        return EventStore.open(self.workspace.store_url(self.settings))

    def promote(self, version: str | None) -> None:
        """End the rollout in progress as if it had promoted its challenger."""
        assert version is not None
        with self.store() as store:
            (row,) = [one for one in store.rollouts.all() if one.revision == 1]
            change_rollout(store, row.name, "abort", clock=lambda: datetime.now(UTC))
        before = retrain.served_version(self.workspace)
        PromotedFile(self.workspace.promoted).promote(version, "a rollout", before)

    def archived(self) -> set[str]:
        return {
            path.stem.removeprefix("recommender-")
            for path in self.workspace.model_store.glob("recommender-*.mar")
        }


@pytest.fixture
def world(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    write_shop(tmp_path / "shop")
    # The repository's own sources take seconds to read.
    write_sources(tmp_path / "repository")
    plan_stages = partial(stages_of, root=tmp_path / "repository")
    monkeypatch.setattr(retrain, "plan_stages", plan_stages)
    workspace = open_workspace(
        tmp_path / "shop", override=tmp_path / "workspace", model_store=tmp_path / "store"
    )
    settings = Settings(retrain=RetrainSettings(min_cases=30))
    workspace.gateway.mkdir(parents=True)
    shutil.copyfile(empty_store, workspace.gateway / "events.db")
    found = World(workspace, settings)
    stages = plan_stages(workspace, settings, found.jobs())
    bring_up_to_date(stages.up_to("archive"), Console(stderr=True))
    write_plan(
        workspace.controller,
        ControllerPlan(
            settings=RolloutSettings(),
            store_url=workspace.store_url(settings),
            torchserve=workspace.server,
            model_store=workspace.model_store,
            promoted=workspace.promoted,
            question={"k": 5},
            longest_request_s=10,
        ),
    )
    own = retrain.served_version(workspace)
    archives = {"recommender": f"recommender-{own}.mar"}
    ServerState(workspace.server, Ports(), tmp_path, archives, str(workspace.catalog)).save()
    loaded = {"load_models": f"encoder=encoder-{own}.mar,recommender=recommender-{own}.mar"}
    write_properties(workspace.server / "config.properties", loaded)
    return found


def test_a_better_version_is_rolled_out(world: World) -> None:
    before = catalog_files(world.workspace.catalog)
    outcome = world.run()
    assert world.done == EVERY
    assert outcome.status == "rollout"
    served = retrain.served_version(world.workspace)
    assert outcome.version != served
    with world.store() as store:
        (row,) = store.rollouts.all()
    plan = Plan.model_validate_json(row.plan)
    assert (plan.control, plan.challenger) == (served, outcome.version)
    assert row.name == f"retrain-{outcome.name}"
    assert catalog_files(world.workspace.catalog) == before
    # While it runs, its control stays.
    with pytest.raises(RolloutError, match="in progress"):
        world.run()
    assert world.done == []


def test_a_worse_version_is_not_exported_and_not_rolled_out(world: World) -> None:
    world.passes = False
    outcome = world.run()
    assert (outcome.status, outcome.reason) == ("not promoted", "it is worse")
    assert world.done == ["train", "gate"]
    with world.store() as store:
        assert store.rollouts.all() == []
    # The next one begins from scratch.
    world.passes = True
    assert world.run().status == "rollout"
    assert world.done == EVERY


def test_too_few_cases_stop_before_the_training(world: World) -> None:
    outcome = world.run(min_cases=500)
    assert outcome.status == "not promoted"
    assert "the gate needs 500" in outcome.reason
    assert world.done == []


def test_without_a_gate_nothing_is_compared(world: World) -> None:
    outcome = world.run(gate="none", min_cases=500)
    assert world.done == [one for one in EVERY if one != "gate"]
    assert outcome.status == "rollout"


def test_a_version_of_another_workspace_cannot_be_compared(world: World) -> None:
    PromotedFile(world.workspace.promoted).promote("elsewhere", "a rollout", "1")
    outcome = world.run()
    assert "no checkpoint" in outcome.reason
    assert outcome.status == "not promoted"


def test_a_version_that_does_not_say_what_it_has_seen_cannot_be_compared(world: World) -> None:
    write_json(world.workspace.checkpoint / "training.json", {"seconds": 1})
    outcome = world.run()
    assert "which events it has seen" in outcome.reason
    assert world.done == []


def test_without_a_server_the_version_waits_in_the_model_store(world: World) -> None:
    shutil.rmtree(world.workspace.server)
    outcome = world.run()
    assert outcome.status == "not promoted"
    assert "nothing is served here" in outcome.reason
    assert outcome.version in world.archived()


@pytest.mark.parametrize("triggers", [(), ("prices",)])
def test_on_drift_it_trains_only_if_a_measure_triggers(
    world: World, monkeypatch: Any, triggers: tuple[str, ...]
) -> None:
    report = SimpleNamespace(triggers=triggers, verdict="Drift?")
    monkeypatch.setattr(retrain, "drift_report", lambda *_: report)
    work = replace(world.retraining(), on_drift=True)
    world.done.clear()
    if triggers:
        assert work.run().status == "rollout"
    else:
        with pytest.raises(EvidenceError, match="no drift"):
            work.run()
    assert bool(world.done) is bool(triggers)


def test_nothing_to_compare_with_is_an_error(world: World) -> None:
    shutil.rmtree(world.workspace.server)
    shutil.rmtree(world.workspace.graphs)
    with pytest.raises(SetupError, match="serve first"):
        world.run()


def test_a_plan_that_cannot_be_read_is_an_error_before_anything_is_done(world: World) -> None:
    with pytest.raises(SetupError, match="cannot read the plan"):
        world.run(plan="unheard-of.yaml")
    assert not world.workspace.retrain.exists()


@pytest.mark.parametrize("step", EVERY)
def test_an_interrupted_retraining_is_resumed_with_the_step(world: World, step: str) -> None:
    every = EVERY
    world.broken[step] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.run()
    served = retrain.served_version(world.workspace)
    (first,) = world.retraining().runs()
    assert first.status == "unfinished"
    # What happens in between belongs to the next one.
    (world.workspace.catalog / "events.parquet").unlink()
    outcome = world.run()
    assert world.done == every[every.index(step) :]
    assert (outcome.name, outcome.served) == (first.name, first.served)
    assert outcome.status == "rollout"
    assert retrain.served_version(world.workspace) == served


def test_an_open_rollout_is_not_opened_again(world: World, monkeypatch: Any) -> None:
    def opened(*given: Any, **more: Any) -> None:
        start_rollout(*given, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(retrain, "start_rollout", opened)
        with pytest.raises(KeyboardInterrupt):
            world.run()
    with world.store() as store:
        assert len(store.rollouts.all()) == 1
    assert world.run().status == "rollout"
    assert world.done == []


def test_a_failed_training_is_over(world: World) -> None:
    world.broken["train"] = TrainingError("too little")
    outcome = world.run()
    assert (outcome.status, outcome.reason) == ("failed", "too little")
    assert world.run().status == "rollout"
    assert [one.status for one in world.retraining().runs()] == ["failed", "rollout"]


def test_the_second_of_two_at_once_names_the_first(world: World) -> None:
    with (
        retrain._locked(world.workspace.retrain),
        pytest.raises(SetupError, match=f"process {os.getpid()} on "),
    ):
        world.run()
    assert world.done == []
    # The holder's name stays after a kill; the lock does not.
    assert world.run().status == "rollout"


def test_the_newest_versions_and_those_in_use_are_kept(world: World) -> None:
    own = retrain.served_version(world.workspace)
    first = world.run(keep=1).version
    world.promote(first)
    second = world.run(keep=1).version
    assert world.archived() == {own, first, second}
    world.promote(second)
    third = world.run(keep=1).version
    # The first is what the second replaced, and could be gone back to.
    assert world.archived() == {own, first, second, third}
    world.promote(third)
    fourth = world.run(keep=1).version
    assert world.archived() == {own, second, third, fourth}
    assert len(world.retraining().runs()) == 4
    assert len([path for path in world.workspace.retrain.iterdir() if path.is_dir()]) == 3


def test_the_report_has_the_decision_the_figures_and_the_history(
    world: World, tmp_path: Path
) -> None:
    world.passes = False
    world.run()
    world.passes = True
    world.run()
    write_report(world.retraining().runs(), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for text in ("Rollout: rollout retrain-", "0.4000", "it is worse", "data:image/png"):
        assert text in page


@pytest.fixture(autouse=True)
def names_by_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one second have names of their own."""
    ticks = iter(range(10_000))
    real = retrain.datetime

    class Clock(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return real.fromtimestamp(BEGIN + 20 * DAY + next(ticks), tz)

    monkeypatch.setattr(retrain, "datetime", Clock)
