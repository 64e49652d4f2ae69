"""The process of the live shelf: its plan file, which the verbs read too, and its start."""

from pathlib import Path

from newshelf.config import EventWeights, RobotSettings, ShelfSettings
from newshelf.server.process import ProcessRef, ProgramPlan, start_program

LOG = "shelf.log"


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


def start_shelf(plan: ShelfPlan, *, root: Path, directory: Path, plan_file: Path) -> ProcessRef:
    """Start the shelf process."""
    log = directory / LOG
    # Workers have the cores first, and small products need no threads.
    env = {"OPENBLAS_NUM_THREADS": "1"}
    return start_program("newshelf.shelf", plan, plan_file, root=root, log=log, **env)
