"""Puts the gateway before a running TorchServe."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from newshelf.config import Settings
from newshelf.files import write_private
from newshelf.gateway.keys import KeyFile
from newshelf.gateway.popular import write_popular
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.server.gateway import start_gateway, wait_for_gateway
from newshelf.server.gateway_plan import GatewayPlan
from newshelf.server.process import stop_session
from newshelf.server.state import ServerState

__all__ = ["LOCAL_KEY", "add_gateway", "first_key"]

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
