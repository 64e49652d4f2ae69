"""The controller of rollouts as a process."""

import os
import sys
from pathlib import Path

from newshelf.server.controller_plan import ControllerPlan, write_controller_plan
from newshelf.server.process import ProcessRef, start_session

__all__ = ["start_controller"]

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
