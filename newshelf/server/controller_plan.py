"""What a rollout's controller is started with, and where the verbs find what it works on."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from newshelf.config import LogSettings, RolloutSettings
from newshelf.errors import SettingsError
from newshelf.files import write_private
from newshelf.validated import read_model

__all__ = ["ControllerPlan", "read_controller_plan", "write_controller_plan"]


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
    """See ``newshelf.server.promoted``."""
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
