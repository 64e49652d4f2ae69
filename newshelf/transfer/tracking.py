"""Where a run's losses and metrics go: TensorBoard, MLflow, or nowhere.

Each library is imported when it is asked for. MLflow's telemetry is turned off, and its
store is a folder unless a server is named, so nothing leaves the machine unasked.
"""

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from newshelf.config import TrackingSettings
from newshelf.errors import SettingsError

__all__ = ["MLflow", "NoTracker", "TensorBoard", "Tracker", "make_tracker"]

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
    """A run of the experiment ``newshelf``; one of the same name is gone on with.

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
