"""Verbs of the command line, where a controller has been but no model server is."""

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.config import RolloutSettings
from newshelf.server.process import write_plan
from newshelf.server.program import ControllerPlan

__all__ = ["Run", "verbs_of"]

Run = Callable[..., tuple[int, str]]
"""Exit code, and what was said."""


def verbs_of(group: str, folder: Path, store_url: str) -> Run:
    """Calls ``./run GROUP …`` on a workspace in ``folder``."""
    workspace = folder / "workspace"
    write_plan(
        workspace / "rollout" / "controller.json",
        ControllerPlan(
            settings=RolloutSettings(),
            store_url=store_url,
            torchserve=folder / "server",
            model_store=folder,
            promoted=folder / "promoted.json",
            question={"k": 5},
            longest_request_s=10,
        ),
    )

    def call(*words: str | Path) -> tuple[int, str]:
        given = [group, *map(str, words), "--workspace", str(workspace)]
        done = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
        return done.exit_code, " ".join(done.output.split())

    return call
