"""``./run retrain``: a new version from what happened since the last one, and its rollout.

A retraining has a folder of its own in the workspace's ``retrain``. Its steps are: merge, train,
gate, export, archive, rollout. A killed one is resumed by the next run with the step that was
interrupted; nothing that serves is touched until the rollout.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import AwareDatetime
from rich.console import Console

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.catalog.interactions import read_interactions
from newshelf.config import Settings
from newshelf.errors import EvidenceError, RolloutError, SetupError
from newshelf.evaluation.splits import newest_split
from newshelf.evaluation.types import GateResult, Split
from newshelf.files import StrictModel, read_json, read_model, write_json
from newshelf.pipeline.drift import drift_report
from newshelf.pipeline.merged_catalog import COUNTS, write_merged
from newshelf.pipeline.stages import Jobs, Stages, archive_paths, bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.rollout.operations import refuse_second, start_rollout
from newshelf.rollout.plan import OVER, Plan, RolloutState, load_plan
from newshelf.rollout.versions import FIRST, MODEL, PromotedFile
from newshelf.server.program import read_controller_plan
from newshelf.server.state import read_state
from newshelf.server.torchserve import archives, read_properties
from newshelf.serving.settings import VERSION, read_version
from newshelf.store.store import EventStore

Status = Literal["unfinished", "rollout", "not promoted", "failed"]
GateJob = Callable[[Path, Workspace, Settings, Catalog, Split], GateResult]
"""Compares the served version's checkpoint with the one that a workspace has trained."""
_GATE = "gate.json"


class RetrainRun(StrictModel):
    """A retraining, and what has come of it."""

    name: str
    started: AwareDatetime
    served: str
    """The version that was served, with which the new one is compared."""
    checkpoint: Path | None
    """Its checkpoint; None if this workspace has not trained it."""
    status: Status = "unfinished"
    reason: str = ""
    ended: AwareDatetime | None = None
    data: Mapping[str, int] = {}
    """Number of rows that were merged, by kind."""
    notes: Sequence[str] = ()
    """On the bias by position, by placement."""
    version: str | None = None
    gate: GateResult | None = None


@dataclass(frozen=True)
class Retraining:
    """Workspace, settings and jobs of retrainings."""

    workspace: Workspace
    settings: Settings
    jobs: Jobs
    gate: GateJob
    console: Console
    on_drift: bool = False
    """Retrain only if a measure of drift triggers."""

    def run(self) -> RetrainRun:
        """Retrain, or resume an interrupted retraining; remove old versions.

        Raises ``RolloutError`` if a rollout is in progress, ``EvidenceError`` without the drift
        that was asked for, ``SettingsError`` if the plan is not valid, ``SetupError`` if another
        retraining runs or nothing was served yet, and ``Unavailable`` if the event store does not
        answer; then the next run resumes.
        """
        plan = load_plan(Path(self.settings.retrain.plan or ROOT / "configs" / "rollout.yaml"))
        with _locked(self.workspace.retrain), EventStore.open(self.store_url) as store:
            unfinished = [run for run in self.runs() if run.status == "unfinished"]
            if unfinished:
                self.console.print(f"resuming the retraining of {unfinished[0].name}")
            run = unfinished[0] if unfinished else self._begin(store)
            place = self._place(run)
            try:
                status, reason = self._take_steps(run, place, plan, store)
            except SetupError as error:
                is_verdict = isinstance(error, EvidenceError | RolloutError)
                status, reason = "not promoted" if is_verdict else "failed", error.message
            counts, gate = place.catalog / COUNTS, place.root / _GATE
            merged = read_json(counts) if counts.exists() else {}
            changes = {
                "status": status,
                "reason": reason,
                "ended": datetime.now(UTC),
                "notes": merged.pop("notes", []),
                "data": merged,
                "version": _version(place),
                "gate": read_model(gate, GateResult, "gate's result") if gate.exists() else None,
            }
            run = run.model_copy(update=changes)
            self._save(run)
            self._prune(store)
        return run

    @property
    def store_url(self) -> str:
        """URL of the event store: that of the server, if one was started."""
        plan = self.workspace.controller
        if plan.exists():
            return read_controller_plan(plan).store_url
        return self.workspace.store_url(self.settings)

    def runs(self) -> list[RetrainRun]:
        """Return all retrainings, oldest first."""
        files = sorted(self.workspace.retrain.glob("*.json"))
        return [read_model(path, RetrainRun, "record of a retraining") for path in files]

    def _save(self, run: RetrainRun) -> None:
        path = self.workspace.retrain / f"{run.name}.json"
        write_json(path, run.model_dump(mode="json"))

    def _begin(self, store: EventStore) -> RetrainRun:
        refuse_second(store)
        if self.on_drift:
            report = drift_report(self.workspace, self.settings, store)
            self.console.print(report.verdict, markup=False)
            if not report.triggers:
                raise EvidenceError("no drift triggers a retraining; ./run drift shows more")
        served, now = served_version(self.workspace), datetime.now(UTC)
        places = [self.workspace, *(self._place(run) for run in self.runs())]
        made = [one.checkpoint for one in places if _version(one) == served.removesuffix(FIRST)]
        name, checkpoint = f"{now:%Y-%m-%d_%H-%M-%S}", made[0] if made else None
        run = RetrainRun(name=name, started=now, served=served, checkpoint=checkpoint)
        self._save(run)
        return run

    def _place(self, run: RetrainRun) -> Workspace:
        root = self.workspace.retrain / run.name
        catalog = root / "catalog" / self.workspace.catalog.name
        store = self.workspace.model_store
        return Workspace(root, catalog, is_sample=False, model_store=store, start=run.checkpoint)

    def _take_steps(
        self, run: RetrainRun, place: Workspace, plan: Plan, store: EventStore
    ) -> tuple[Status, str]:
        """Take the steps that are left; return how and why the retraining ended."""
        if not place.catalog.exists():
            self.console.print("merging catalogue, live products and feedback …")
            catalog = read_catalog(self.workspace.catalog)
            write_merged(catalog, store, place.catalog, self.settings)
        if not place.features.is_symlink():
            # Cached by content, so that only new products cost time.
            self.workspace.features.mkdir(parents=True, exist_ok=True)
            place.features.symlink_to(self.workspace.features)
        stages = plan_stages(place, self.settings, self.jobs)
        if self.settings.retrain.gate != "none":
            result = self._gated(run, place, stages)
            if not result.passed:
                return "not promoted", result.reason
        bring_up_to_date(stages.up_to("archive"), self.console)
        version, name = str(_version(place)), f"retrain-{run.name}"
        if version == run.served.removesuffix(FIRST):
            return "not promoted", "it has the weights of the served version"
        if name not in {row.name for row in store.rollouts.all()}:
            if read_state(self.workspace.server) is None:
                raise RolloutError(
                    f"nothing is served here, so no rollout was opened; version {version} is in "
                    "the model store: ./run serve, then ./run rollout start PLAN.yaml"
                )
            planned = plan.model_copy(update={"control": run.served, "challenger": version})
            start_rollout(
                store,
                lambda: served_version(self.workspace),
                place.model_store,
                planned,
                name,
            )
        return "rollout", f"rollout {name} compares {version} with {run.served}"

    def _gated(self, run: RetrainRun, place: Workspace, stages: Stages) -> GateResult:
        """Train, and compare with the served version; refuse before any time is spent."""
        trained = {} if run.checkpoint is None else read_json(run.checkpoint / "training.json")
        if run.checkpoint is None or "newest_event" not in trained:
            raise EvidenceError(
                f"version {run.served} is served, and this workspace has no checkpoint of it that "
                "says which events it has seen: train and serve again, or use --gate none"
            )
        catalog, limits = read_catalog(place.catalog), self.settings.retrain
        after = trained["newest_event"] or 0
        split = newest_split(
            read_interactions(catalog, self.settings), after, limits, self.settings.seed
        )
        path = place.root / _GATE
        if bring_up_to_date(stages.up_to("train"), self.console) or not path.exists():
            result = self.gate(run.checkpoint, place, self.settings, catalog, split)
            write_json(path, result.model_dump(mode="json"))
        return read_model(path, GateResult, "gate's result")

    def _prune(self, store: EventStore) -> None:
        """Remove the oldest versions, but none that is served, rolled out, or gone back to."""
        promoted = PromotedFile(self.workspace.promoted).read()
        used = {served_version(self.workspace), _version(self.workspace)}
        used |= {promoted.before} if promoted else set()
        for row in store.rollouts.all():
            if RolloutState.model_validate_json(row.state).phase not in OVER:
                plan = Plan.model_validate_json(row.plan)
                used |= {plan.control, plan.challenger}
        kept = [run for run in self.runs() if self._place(run).root.exists()]
        for place in map(self._place, kept[: -self.settings.retrain.keep]):
            if _version(place) not in used - {None}:
                packed = archive_paths(place.archive)
                shutil.rmtree(place.root)
                for path in packed:
                    path.unlink(missing_ok=True)
                self.console.print(f"removed the version of {place.root.name}")


def served_version(workspace: Workspace) -> str:
    """Return the version of the recommender that serves, by the files of the workspace.

    The server may run on another host with the same files. Raises ``SetupError`` if there is none.
    """
    promoted = PromotedFile(workspace.promoted).read()
    if promoted is not None:
        return promoted.version
    state = read_state(workspace.server)
    # A search for a precision may have changed it since the start.
    loaded = read_properties(state.directory / "config.properties")["load_models"] if state else ""
    started = archives([Path(one.partition("=")[2]) for one in loaded.split(",")]).get(MODEL)
    version = started.stem.partition("-")[2] if started else _version(workspace)
    if version is None:
        raise SetupError(f"nothing was archived in {workspace.root} yet: ./run serve first")
    return version


def _version(workspace: Workspace) -> str | None:
    """Return the version of the exported checkpoint, if there is one."""
    return read_version(workspace.graphs) if (workspace.graphs / VERSION).exists() else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of retrainings; the system releases it when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock"), folder / ".holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        held = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise SetupError(f"another retraining runs: {held}; this one did nothing") from None
    try:
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        yield
    finally:
        lock.release()
