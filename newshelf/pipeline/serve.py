"""From a catalogue to a server that answers: what ``./run serve`` does.

Puts the gateway before a running TorchServe.

Starts the controller of rollouts behind a gateway, and says what a start serves.
"""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from newshelf.catalog.catalog import read_catalog
from newshelf.config import Settings
from newshelf.errors import ServerError
from newshelf.files import write_private
from newshelf.gateway.fallback import write_popular
from newshelf.gateway.keys import KeyFile
from newshelf.pipeline.demo import Demo, pick_demo
from newshelf.pipeline.stages import Jobs, archive_paths, bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.rollout.versions import PromotedFile
from newshelf.server.client import Client
from newshelf.server.controller import ControllerPlan, start_controller
from newshelf.server.gateway import GatewayPlan, start_gateway, wait_for_gateway
from newshelf.server.ports import Ports
from newshelf.server.process import is_running, stop_session
from newshelf.server.properties import archives
from newshelf.server.state import ServerState, running_state
from newshelf.server.torchserve import ServerPlan, start, wait_until_ready

LOCAL_KEY = "local"
_LOCAL_RATE_PER_S = 1_000.0
_ITEMS = ("index", "items.json")


def add_gateway(
    state: ServerState,
    workspace: Workspace,
    settings: Settings,
    console: Console,
    *,
    port: int | None = None,
) -> ServerState:
    """Start the gateway and wait until it answers.

    Args:
        state: of the server behind it, which is ready.
        workspace: has the index, the keys and the event store.
        settings: of the gateway and the store.
        console: where it is told.
        port: instead of the settings'.

    Returns:
        The state with the gateway, written down.

    Raises:
        ServerError: the port is taken, or it did not become ready; then it is ended.
        SettingsError: the keys cannot be read.
    """
    gateway = settings.gateway
    if port is not None:
        gateway = gateway.model_copy(update={"port": port})
    popular = state.directory / "popular.json"
    write_popular(workspace.export.joinpath(*_ITEMS), popular)
    first_key(workspace)
    plan = GatewayPlan(
        settings=gateway,
        logs=settings.logs,
        limits=settings.archive.limits,
        inference_url=state.inference_url,
        management_url=state.management_url,
        torchserve_keys=state.key_file,
        api_keys=workspace.api_keys,
        popular=popular,
        store_url=workspace.store_url(settings),
        spool=Path(settings.store.spool or workspace.gateway / "spool.db").absolute(),
        spool_max_bytes=settings.store.spool_max_bytes,
    )
    started = start_gateway(plan, root=ROOT, directory=state.directory)
    try:
        with_gateway = replace(state, gateway=started)
        # Before anything can go wrong: whoever ends the server has to find both.
        with_gateway.save()
        wait_for_gateway(started, timeout_s=settings.stall_s, on_wait=console.print)
    except BaseException:
        stop_session(started.process)
        raise
    console.print(f"[green]✓[/] the gateway answers at {started.url}")
    return with_gateway


def first_key(workspace: Workspace) -> Path:
    """Where the key for this machine is; made when there is no key at all.

    The gateway keeps its hash only; this private file is for whoever tries the gateway here.
    """
    path = workspace.gateway / f"{LOCAL_KEY}.key"
    keys = KeyFile(workspace.api_keys)
    if not keys.read():
        now = datetime.now(UTC)
        secret = keys.add(LOCAL_KEY, now=now, expires=None, rate_per_s=_LOCAL_RATE_PER_S)
        write_private(path, secret + "\n")
    return path


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
