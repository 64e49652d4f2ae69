"""The process of the live shelf: its plan file, which the verbs read too, and its start."""

import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from newshelf.config import LogSettings, ShelfSettings
from newshelf.files import write_private
from newshelf.server.process import ProcessRef, start_session

LOG = "shelf.log"


class ShelfPlan(BaseModel):
    """Settings of a shelf process, and the files and folders that it uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: ShelfSettings = ShelfSettings()
    logs: LogSettings = LogSettings()
    store_url: str
    """URL of the event store."""
    torchserve: Path
    """TorchServe's working directory."""
    model_store: Path
    folder: Path
    """Of all versions' shelves; TorchServe's workers read it."""
    rules: Path | None = None
    """File of merchandising rules, which need not exist."""
    max_picture_bytes: int = 5_000_000


def start_shelf(plan: ShelfPlan, *, root: Path, directory: Path, plan_file: Path) -> ProcessRef:
    """Start the shelf process; the plan is its owner's only, since the URL may hold a password."""
    write_private(plan_file, plan.model_dump_json(indent=2) + "\n")
    return start_session(
        [sys.executable, "-P", "-m", "newshelf.shelf", plan_file],
        cwd=directory,
        # Workers have the cores first, and small products need no threads.
        env={"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(root)},
        log=directory / LOG,
        kept=plan.logs.kept,
    )
