"""The plan file of the controller of rollouts, which the verbs read too."""

import socket
from pathlib import Path

from pydantic import Field

from newshelf.config import RolloutSettings, WebhookSettings
from newshelf.errors import SettingsError
from newshelf.files import read_model
from newshelf.server.process import ProgramPlan


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
    host: str = Field(default_factory=socket.gethostname)
    """Name of this host, different from those of the store's other controllers."""


def read_controller_plan(path: Path) -> ControllerPlan:
    """Read a plan."""
    if not path.exists():
        raise SettingsError(
            f"there are no rollouts here: {path} is missing. ./run serve starts the gateway and "
            "the controller; --catalog or --workspace selects a server"
        )
    return read_model(path, ControllerPlan, "plan of a controller")
