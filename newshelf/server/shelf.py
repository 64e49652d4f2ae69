"""The plan file of the live shelf's process, which the verbs read too."""

from pathlib import Path

from newshelf.config import EventWeights, RobotSettings, ShelfSettings
from newshelf.server.process import ProgramPlan


class ShelfPlan(ProgramPlan):
    """Settings of a shelf process, and the files and folders that it uses."""

    settings: ShelfSettings = ShelfSettings()
    event_weights: EventWeights = EventWeights()
    robots: RobotSettings = RobotSettings()
    store_url: str
    torchserve: Path
    model_store: Path
    folder: Path
    """Of all versions' shelves; TorchServe's workers read it."""
    rules: Path | None = None
    """File of merchandising rules, which need not exist."""
    max_picture_bytes: int = 5_000_000
