"""The process of the controller of rollouts: its plan file, which the verbs read too; its start."""

import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from newshelf.config import LogSettings, RolloutSettings
from newshelf.errors import SettingsError
from newshelf.files import read_model, write_private
from newshelf.server.process import ProcessRef, start_session

_LOG = "controller.log"


class ControllerPlan(BaseModel):
    """Settings of a controller, and the files and folders that it uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: RolloutSettings
    logs: LogSettings = LogSettings()
    store_url: str
    """URL of the event store."""
    torchserve: Path
    """TorchServe's working directory."""
    model_store: Path
    promoted: Path
    """File of the promoted version; see ``newshelf.rollout.versions``."""
    question: dict[str, object]
    """A request that every version of the recommender must answer with products."""
    longest_request_s: float
    """Seconds after which no gateway awaits an answer any more."""


def write_controller_plan(path: Path, plan: ControllerPlan) -> None:
    """Write a plan, readable by its owner only: the store's URL may hold a password."""
    write_private(path, plan.model_dump_json(indent=2) + "\n")


def read_controller_plan(path: Path) -> ControllerPlan:
    """Read a plan."""
    if not path.exists():
        raise SettingsError(
            f"there are no rollouts here: {path} is missing. ./run serve starts the gateway and "
            "the controller; --catalog or --workspace selects a server"
        )
    return read_model(path, ControllerPlan, "plan of a controller")


def start_controller(
    plan: ControllerPlan, *, root: Path, directory: Path, plan_file: Path
) -> ProcessRef:
    """Start the controller; ``plan_file`` is read by the process and by the verbs."""
    write_controller_plan(plan_file, plan)
    return start_session(
        [sys.executable, "-P", "-m", "newshelf.rollout", plan_file],
        cwd=directory,
        # Its products are small: threads would only wait for each other.
        env={"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(root)},
        log=directory / _LOG,
        kept=plan.logs.kept,
    )
