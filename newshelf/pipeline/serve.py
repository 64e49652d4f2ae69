"""From a catalogue to a server that answers: what ``./run serve`` does."""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from newshelf.catalog import read_catalog
from newshelf.config import Settings
from newshelf.errors import ServerError
from newshelf.pipeline.controller import add_controller, served_archives
from newshelf.pipeline.demo import Demo, pick_demo
from newshelf.pipeline.gateway import add_gateway
from newshelf.pipeline.stages import Jobs, plan_stages
from newshelf.pipeline.update import bring_up_to_date
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.client import Client
from newshelf.server.ports import Ports
from newshelf.server.process import is_running
from newshelf.server.readiness import wait_until_ready
from newshelf.server.state import ServerState, running_state
from newshelf.server.torchserve import ServerPlan, start

__all__ = ["Served", "serve", "stay"]


@dataclass(frozen=True)
class Served:
    """A running server, and its first recommendation."""

    state: ServerState
    demo: Demo
    answer: dict[str, Any]


def serve(
    workspace: Workspace,
    settings: Settings,
    jobs: Jobs,
    console: Console,
    *,
    ports: Ports | None = None,
    gateway_port: int | None = None,
    k: int = 10,
) -> Served:
    """Bring every stage up to date, start TorchServe, wait until both models answer; then
    the gateway and the controller of rollouts, if the settings want them.

    Args:
        workspace: whose models.
        settings: of training, serving and the gateway.
        jobs: do the stages' work.
        console: where the progress is shown.
        ports: of TorchServe; None takes those of config.properties.
        gateway_port: None takes the settings'.
        k: products of the first recommendation.

    Raises:
        ServerError: it did not become ready; whatever had been started is ended.
    """
    _refuse_second(workspace)
    with workspace.locked(console):
        _refuse_second(workspace)
        made = bring_up_to_date(plan_stages(workspace, settings, jobs).up_to("archive"), console)
        catalog = read_catalog(workspace.catalog)
        if "train" not in made:  # which has printed it
            console.print(catalog.report.summary(console.width), markup=False)
        demo = pick_demo(catalog)
        state = start(
            ServerPlan(
                root=ROOT,
                directory=workspace.server,
                model_store=workspace.model_store,
                models=served_archives(workspace, console),
                catalog=str(workspace.catalog),
                ports=ports,
                logs=settings.logs,
            )
        )
        try:
            answer = _first_answer(state, demo, console, k, settings.stall_s)
            if settings.gateway.enabled:
                state = add_gateway(state, workspace, settings, console, port=gateway_port)
                state = add_controller(state, workspace, settings, demo)
            return Served(state, demo, answer)
        except BaseException:
            state.end()
            raise


def stay(state: ServerState) -> None:
    """Return only by an exception: an interruption, or that a server ended by itself.

    Raises:
        ServerError: TorchServe or the gateway ended by itself.
    """
    while is_running(state.process):
        gateway = state.gateway
        if gateway is not None and not is_running(gateway.process):
            raise ServerError(f"the gateway ended by itself; its log is {gateway.log}")
        time.sleep(0.5)
    raise ServerError(f"TorchServe ended by itself; its log is {state.log}")


def _refuse_second(workspace: Workspace) -> None:
    running = running_state(workspace.server)
    if running is not None:
        raise ServerError(
            f"already serving {running.catalog} at {running.inference_url}; ./run status tells "
            "more, ./run stop ends it"
        )


def _first_answer(
    state: ServerState, demo: Demo, console: Console, k: int, stall_s: float
) -> dict[str, Any]:
    def tell(model: str, seconds: float) -> None:
        console.print(f"[green]✓[/] {model} answers after {seconds:.1f} s")

    with console.status("TorchServe starts, and its workers load their models …"):
        wait_until_ready(
            state, demo.questions(), timeout_s=stall_s, on_ready=tell, on_wait=console.print
        )
    with Client(state) as client:
        return client.recommend(history=demo.history, k=k)
