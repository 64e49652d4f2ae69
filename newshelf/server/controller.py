"""The process of the controller of rollouts: its plan file, which the verbs read too; its start."""

from pathlib import Path

from newshelf.config import RolloutSettings, WebhookSettings
from newshelf.errors import SettingsError
from newshelf.files import read_model
from newshelf.server.process import ProcessRef, ProgramPlan, start_program

_LOG = "controller.log"


class ControllerPlan(ProgramPlan):
    """Settings of a controller, and the files and folders that it uses."""

    settings: RolloutSettings
    store_url: str
    torchserve: Path
    model_store: Path
    promoted: Path
    """File of the promoted version; see ``newshelf.rollout.versions``."""
    question: dict[str, object]
    """A request that every version of the recommender must answer with products."""
    longest_request_s: float
    """Seconds after which no gateway awaits an answer any more."""
    webhooks: WebhookSettings = WebhookSettings()


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
    log = directory / _LOG
    # Its products are small: threads would only wait for each other.
    env = {"OPENBLAS_NUM_THREADS": "1"}
    return start_program("newshelf.rollout", plan, plan_file, root=root, log=log, **env)
