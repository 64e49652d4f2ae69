"""What one gateway is started with: written by who starts it, read by each of its processes."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from newshelf.config import GatewaySettings, Limits, LogSettings
from newshelf.files import write_private
from newshelf.validated import read_model

__all__ = ["GatewayPlan", "read_plan", "write_plan"]


class GatewayPlan(BaseModel):
    """Settings, and where everything is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: GatewaySettings
    logs: LogSettings = LogSettings()
    limits: Limits = Limits()
    """Of one request, as the archives have them."""
    inference_url: Annotated[str, Field(pattern=r"^http://[^/]+$")]
    """TorchServe's."""
    management_url: Annotated[str, Field(pattern=r"^http://[^/]+$")] | None = None
    """To renew the token; None does not renew it."""
    torchserve_keys: Path | None = None
    """TorchServe's key file; None where it asks for no token."""
    api_keys: Path
    """The file of the gateway's own keys."""
    popular: Path
    """See ``newshelf.gateway.popular``."""
    store_url: str
    """Of the event store."""
    spool: Path | None = None
    """The file that keeps what the event store cannot take; None does without."""
    spool_max_bytes: int = 256 * 2**20


def write_plan(path: Path, plan: GatewayPlan) -> None:
    """Write it; its owner alone can read it, since the store's URL may hold a password."""
    write_private(path, plan.model_dump_json(indent=2) + "\n")


def read_plan(path: Path) -> GatewayPlan:
    """Read what ``write_plan`` wrote, or what somebody wrote by hand.

    Raises:
        SettingsError: it cannot be read, or is no plan.
    """
    return read_model(path, GatewayPlan, "plan of a gateway")
