"""Context of a training run: seed, saved progress, console, and tracking of its losses.

Losses and metrics go to TensorBoard, MLflow, or nowhere; each library is imported only if it is
used. MLflow's telemetry is disabled and its store is a folder unless a server is named, so
nothing leaves the machine by default.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from newshelf.config import Settings, TrackingSettings, settings_values
from newshelf.errors import SettingsError
from newshelf.files import read_json, write_aside, write_json
from newshelf.training.distributed import agreed, is_first

_EXPERIMENT = "newshelf"
_REGISTERED = "newshelf-recommender"
_NAME_TAG = "newshelf.run"
_STARTED = "started.json"
_LABELS = {"source": "fine-tuning on the source category"}


class Tracker:
    """Records scalars of a run; this base class discards them."""

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` of the loop ``name`` after epoch ``step``, counted from 0."""

    def close(self, *, failed: bool = False) -> None:
        """Write what is pending, and record how the run ended."""


class TensorBoard(Tracker):
    """Event files in ``folder``; ``tensorboard --logdir`` of its parent shows all runs."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        tensorboard: Any = import_module("torch.utils.tensorboard")
        self._writer = tensorboard.SummaryWriter(str(folder))
        text = json.dumps(settings, indent=2)
        self._writer.add_text("settings", f"```json\n{text}\n```")

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Write one scalar ``name/key`` per value."""
        for key, value in values.items():
            self._writer.add_scalar(f"{name}/{key}", value, step)
        # So that a killed run has written what it logged.
        self._writer.flush()

    def close(self, *, failed: bool = False) -> None:
        """Record how the run ended, and close the event file."""
        self._writer.add_text("end", "failed" if failed else "finished")
        self._writer.close()


class MLflow(Tracker):
    """A run of the experiment ``newshelf``; a run of the same name is continued.

    The light client supports folders, servers and SQLAlchemy's databases.
    """

    def __init__(self, uri: str, name: str, settings: Mapping[str, object]) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Otherwise MLflow refuses folders, which get no new features.
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        mlflow: Any = import_module("mlflow")
        try:
            # The registry of a folder asks the default store, which would be in this folder.
            mlflow.set_tracking_uri(uri)
            self._client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = self._client.get_experiment_by_name(_EXPERIMENT)
            experiment = (
                found.experiment_id if found else self._client.create_experiment(_EXPERIMENT)
            )
            runs = self._client.search_runs([experiment], f"tags.`{_NAME_TAG}` = '{name}'")
            if runs:
                self._run = runs[0].info.run_id
                self._client.update_run(self._run, status="RUNNING")
                return
            run = self._client.create_run(experiment, run_name=name, tags={_NAME_TAG: name})
            self._run = run.info.run_id
            for key, value in settings.items():
                self._client.log_param(self._run, key, value)
        except mlflow.MlflowException as error:
            raise SettingsError(
                f"[tracking] MLflow cannot write to {uri}: {error.message}; name a folder, or "
                "the http:// address of a server that runs"
            ) from error

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Write one metric ``name/key`` per value."""
        for key, value in values.items():
            self._client.log_metric(self._run, f"{name}/{key}", value, step=step)

    def register(self, card: Mapping[str, Any], folder: Path) -> None:
        """Register a version with its model card, whose files are in ``folder``, once."""
        for split in (card["evaluation"] or {"splits": ()})["splits"]:
            k = str(split["k"][0])
            for one in (one for one in split["rankers"] if one["name"] == split["model"]):
                self.log(split["name"], 0, {name: one[name][k] for name in ("ndcg", "recall")})
        for path in folder.glob("model-card.*"):
            self._client.log_artifact(self._run, str(path))
        known = self._client.search_model_versions(f"name = '{_REGISTERED}'")
        if card["version"] in {one.tags.get("version") for one in known}:
            return
        if not known:
            self._client.create_registered_model(_REGISTERED)
        self._client.create_model_version(
            _REGISTERED,
            self._client.get_run(self._run).info.artifact_uri,
            run_id=self._run,
            tags={"version": card["version"], "catalog": card["catalog"]},
        )

    def close(self, *, failed: bool = False) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def make_tracker(
    settings: TrackingSettings, runs: Path, name: str, values: Mapping[str, object]
) -> Tracker:
    """Return the tracker for ``settings``.

    ``runs`` is the default folder; ``values`` are recorded.

    Raises:
        SettingsError: MLflow cannot use the folder or the server.
    """
    folder = Path(settings.folder).resolve() if settings.folder else runs
    if settings.kind == "tensorboard":
        return TensorBoard(folder / name, values)
    if settings.kind == "mlflow":
        return MLflow(settings.uri or folder.as_uri(), name, values)
    return Tracker()


def register_version(
    settings: TrackingSettings, runs: Path, card: Mapping[str, Any], folder: Path, console: Console
) -> None:
    """Register a version in MLflow, if it is the tracker; print why if that is impossible."""
    if settings.kind != "mlflow":
        return
    mlflow: Any = import_module("mlflow")
    try:
        tracker = make_tracker(settings, runs, f"version {card['version']}", card["settings"])
        if isinstance(tracker, MLflow):
            tracker.register(card, folder)
        tracker.close()
    except (SettingsError, mlflow.MlflowException) as error:
        console.print(f"the version is not registered: {error.message}", markup=False)


@dataclass(frozen=True)
class LoopCheckpoint:
    """State of one loop after an epoch."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Context of all loops of one training run."""

    seed: int
    console: Console = field(default_factory=lambda: Console(stderr=True))
    state: Path | None = None
    """The folder of this run's progress; None saves none."""
    identity: str = ""
    """Of data, settings and code. Progress saved under another identity is not used."""
    tracker: Tracker = field(default_factory=Tracker)
    quiet: bool = False
    """Print nothing, for the many small loops of an experiment."""
    labels: dict[str, str] = field(default_factory=dict)
    """Progress bar labels by the loop's name."""

    def label(self, name: str) -> str:
        """Return the label of the progress bar."""
        return self.labels.get(name, f"training {name}")

    def tell(self, line: str) -> None:
        """Print a line, unless the run is quiet."""
        if not self.quiet:
            self.console.print(line, markup=False)

    def load(self, name: str) -> LoopCheckpoint | None:
        """Return the progress of the loop ``name``, or None without usable progress.

        The first process reads it for all.
        """
        progress: LoopCheckpoint | None = agreed(self._read(name) if is_first() else None)
        return progress

    def _read(self, name: str) -> LoopCheckpoint | None:
        path = self._path(name)
        if path is None or not path.exists():
            return None
        try:
            kept = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            self.tell(f"{path} cannot be resumed from ({error}): starting from scratch")
            return None
        if kept.pop("identity", None) != self.identity:
            return None
        return LoopCheckpoint(**kept)

    def save(self, name: str, progress: LoopCheckpoint) -> None:
        """Save the progress of the loop ``name`` atomically, in the first process."""
        path = self._path(name)
        if path is None or not is_first():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as aside:
            torch.save({"identity": self.identity, **vars(progress)}, aside)

    def _path(self, name: str) -> Path | None:
        return None if self.state is None else self.state / f"{name}.pt"


@contextmanager
def start_run(
    settings: Settings, console: Console, *, state: Path, identity: str, runs: Path
) -> Iterator[Run]:
    """Start or resume a run; its tracker is closed at the end, as failed after an error.

    ``identity`` is that of everything that affects the result; ``runs`` is the trackers' default
    folder.
    """
    name = agreed(_run_name(state, identity, console) if is_first() else None)
    tracker = Tracker()
    if is_first():
        values = settings_values(settings.model_dump(mode="json", exclude={"archive", "sample"}))
        tracker = make_tracker(settings.tracking, runs, name, values)
    failed = True
    try:
        yield Run(settings.seed, console, state, identity, tracker, labels=_LABELS)
        failed = False
    finally:
        tracker.close(failed=failed)


def _run_name(state: Path, identity: str, console: Console) -> str:
    """Return the name of the interrupted run in ``state``, or a new one."""
    path = state / _STARTED
    try:
        kept = read_json(path)
        if kept["identity"] == identity:
            console.print(f"resuming the training that began at {kept['name']}")
            return str(kept["name"])
    except (OSError, ValueError, KeyError, TypeError):
        # No run was started, or its file is incomplete.
        pass
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    write_json(path, {"identity": identity, "name": name})
    return name
