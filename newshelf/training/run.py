"""Context of a training run: seed, saved progress, console, and tracking of its losses.

Losses and metrics go to TensorBoard, MLflow, or nowhere; each library is imported only if it is
used. MLflow's telemetry is turned off, and its store is a folder unless a server is named, so
nothing leaves the machine without a setting.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor

from newshelf.config import TrackingSettings
from newshelf.errors import SettingsError
from newshelf.files import write_aside
from newshelf.training.distributed import agreed, is_first

_EXPERIMENT = "newshelf"
_NAME_TAG = "newshelf.run"


class Tracker(Protocol):
    """Takes scalars while a run goes on."""

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` of the loop ``name`` after epoch ``step``, counted from 0."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Flush what is not written yet; the run is over."""
        ...


class NoTracker:
    """Keeps nothing."""

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def close(self, *, failed: bool = False) -> None:
        """Do nothing."""


class TensorBoard:
    """Event files in ``folder``; ``tensorboard --logdir`` of its parent shows all runs."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        tensorboard: Any = import_module("torch.utils.tensorboard")
        self._writer = tensorboard.SummaryWriter(str(folder))
        text = json.dumps(settings, indent=2)
        self._writer.add_text("settings", f"```json\n{text}\n```")

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """One scalar ``name/key`` for each value."""
        for key, value in values.items():
            self._writer.add_scalar(f"{name}/{key}", value, step)
        # A run that is killed has written what it logged.
        self._writer.flush()

    def close(self, *, failed: bool = False) -> None:
        """Say how it ended, and close the event file."""
        self._writer.add_text("end", "failed" if failed else "finished")
        self._writer.close()


class MLflow:
    """A run of the experiment ``newshelf``; one of the same name is continued.

    The light client knows folders, servers and SQLAlchemy's databases.
    """

    def __init__(self, uri: str, name: str, settings: Mapping[str, object]) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Without this MLflow refuses folders, which get no new features.
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        mlflow: Any = import_module("mlflow")
        try:
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
        """One metric ``name/key`` for each value."""
        for key, value in values.items():
            self._client.log_metric(self._run, f"{name}/{key}", value, step=step)

    def close(self, *, failed: bool = False) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def make_tracker(
    settings: TrackingSettings, runs: Path, name: str, values: Mapping[str, object]
) -> Tracker:
    """The tracker that the settings ask for.

    Args:
        settings: ``[tracking]``.
        runs: the folder where they name none.
        name: of this run.
        values: its settings, recorded with it.

    Raises:
        SettingsError: MLflow cannot use the folder or the server.
    """
    folder = Path(settings.folder).resolve() if settings.folder else runs
    if settings.kind == "tensorboard":
        return TensorBoard(folder / name, values)
    if settings.kind == "mlflow":
        return MLflow(settings.uri or folder.as_uri(), name, values)
    return NoTracker()


@dataclass(frozen=True)
class LoopCheckpoint:
    """State of one loop after an epoch."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    history: dict[str, Any]
    best: dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """Passed to every loop of one training.

    ``state`` is a folder for this run alone; its progress is used only if it was saved under
    the same ``identity`` (data, settings and code), so a changed run starts from scratch.
    """

    seed: int
    console: Console = field(default_factory=lambda: Console(stderr=True))
    state: Path | None = None
    """None keeps no progress."""
    identity: str = ""
    tracker: Tracker = field(default_factory=NoTracker)
    quiet: bool = False
    """Show no progress bar, as for the many small loops of an experiment."""
    labels: dict[str, str] = field(default_factory=dict)
    """What the progress bar says, by the loop's name."""

    def label(self, name: str) -> str:
        """The progress bar's words."""
        return self.labels.get(name, f"training {name}")

    def tell(self, line: str) -> None:
        """Print a line, unless the run is quiet."""
        if not self.quiet:
            self.console.print(line, markup=False)

    def load(self, name: str) -> LoopCheckpoint | None:
        """Return the progress saved under ``name``, or None if nothing fits.

        The first process reads, and tells the others.
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
        """Keep it, written aside and renamed; with several processes, the first one does."""
        path = self._path(name)
        if path is None or not is_first():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as aside:
            torch.save({"identity": self.identity, **vars(progress)}, aside)

    def _path(self, name: str) -> Path | None:
        return None if self.state is None else self.state / f"{name}.pt"
