"""Starts the controller of rollouts behind a gateway, and says what a start serves."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from newshelf.config import Settings
from newshelf.errors import ServerError
from newshelf.pipeline.demo import Demo
from newshelf.pipeline.stages import archive_paths
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.controller import start_controller
from newshelf.server.controller_plan import ControllerPlan
from newshelf.server.process import stop_session
from newshelf.server.promoted import PromotedFile
from newshelf.server.properties import archives
from newshelf.server.state import ServerState

__all__ = ["add_controller", "served_archives"]

_MODEL = "recommender"
_QUESTION_K = 5


def add_controller(
    state: ServerState, workspace: Workspace, settings: Settings, demo: Demo
) -> ServerState:
    """Start the controller.

    Args:
        state: of the servers, which answer.
        workspace: keeps the rollouts' files.
        settings: of the controller, the gateway and the store.
        demo: what every version is asked before shoppers are.

    Returns:
        The state with the controller, written down.
    """
    plan = ControllerPlan(
        settings=settings.rollout,
        logs=settings.logs,
        store_url=workspace.store_url(settings),
        torchserve=state.directory,
        model_store=workspace.model_store,
        promoted=workspace.promoted,
        question={"history": demo.history, "k": _QUESTION_K},
        longest_request_s=settings.gateway.max_timeout_ms / 1000,
    )
    process = start_controller(
        plan, root=ROOT, directory=state.directory, plan_file=workspace.controller
    )
    try:
        started = replace(state, controller=process)
        started.save()
    except BaseException:
        stop_session(process)
        raise
    return started


def served_archives(workspace: Workspace, console: Console) -> dict[str, Path]:
    """The archive of each model: what a rollout has promoted, or else the workspace's own.

    Args:
        workspace: whose archives are made.
        console: told when the two differ.

    Raises:
        ServerError: what was promoted is not in the model store.
    """
    own = archives(archive_paths(workspace.archive))
    promoted = PromotedFile(workspace.promoted).read()
    if promoted is None:
        return own
    path = workspace.model_store / f"{_MODEL}-{promoted.version}.mar"
    if path == own[_MODEL]:
        return own
    if not path.is_file():
        raise ServerError(
            f"rollout {promoted.rollout} promoted version {promoted.version}, but {path} is gone: "
            f"put it back, or remove {workspace.promoted} to serve {own[_MODEL].name}"
        )
    console.print(
        f"serving {path.name}, which rollout {promoted.rollout} decided on; {own[_MODEL].name} of "
        "this workspace is for ./run rollout start",
        markup=False,
    )
    return own | {_MODEL: path}
