"""The controller of rollouts as a process.

What a rollout's controller is started with, and where the verbs find what it works on.
"""

import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from newshelf.config import LogSettings, RolloutSettings
from newshelf.errors import SettingsError
from newshelf.files import read_model, write_private
from newshelf.server.process import ProcessRef, start_session


class ControllerPlan(BaseModel):
    """Settings, and where everything is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: RolloutSettings
    logs: LogSettings = LogSettings()
    store_url: str
    """Of the event store."""
    torchserve: Path
    """TorchServe's working directory."""
    model_store: Path
    """Where archives are loaded from."""
    promoted: Path
    """See ``newshelf.rollout.versions``."""
    question: dict[str, object]
    """A request to which every version of the recommender must answer with products."""
    longest_request_s: float
    """After which no gateway waits for an answer any more."""


def write_controller_plan(path: Path, plan: ControllerPlan) -> None:
    """Write it; its owner alone can read it, since the store's URL may hold a password."""
    write_private(path, plan.model_dump_json(indent=2) + "\n")


def read_controller_plan(path: Path) -> ControllerPlan:
    """Read what ``write_controller_plan`` wrote.

    Raises:
        SettingsError: it cannot be read, or is no plan.
    """
    if not path.exists():
        raise SettingsError(
            f"there are no rollouts here: {path} is missing. ./run serve starts a gateway and "
            "what rolls out behind it; --catalog or --workspace says which"
        )
    return read_model(path, ControllerPlan, "plan of a controller")


_LOG = "controller.log"


def start_controller(
    plan: ControllerPlan, *, root: Path, directory: Path, plan_file: Path
) -> ProcessRef:
    """Start it; it looks at rollouts until it is ended.

    Args:
        plan: settings and places.
        root: the repository.
        directory: the server's, for its log.
        plan_file: where the plan is kept; the verbs read it too.
    """
    write_controller_plan(plan_file, plan)
    return start_session(
        [sys.executable, "-P", "-m", "newshelf.rollout", plan_file],
        cwd=directory,
        # Sums over a few thousand shoppers: threads would only wait for each other.
        env={"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(root)},
        log=directory / _LOG,
        kept=plan.logs.kept,
    )
