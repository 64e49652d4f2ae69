"""Which server a verb without further words means."""

from pathlib import Path

from newshelf.errors import ServerError
from newshelf.pipeline.workspace import WORKSPACES, open_workspace
from newshelf.server.state import ServerState, find_running, running_state

__all__ = ["only_server", "servers"]


def servers(catalog: Path | None, workspace: Path | None) -> list[ServerState]:
    """The running servers: the one of ``catalog`` or ``workspace``, or else all of them."""
    if catalog is None and workspace is None:
        return find_running(WORKSPACES)
    state = running_state(open_workspace(catalog, override=workspace).server)
    return [] if state is None else [state]


def only_server(catalog: Path | None, workspace: Path | None) -> ServerState:
    """The one that runs.

    Raises:
        ServerError: none runs, or several do.
    """
    found = servers(catalog, workspace)
    if not found:
        raise ServerError("no server is running; ./run serve --detach starts one")
    if len(found) > 1:
        catalogs = ", ".join(state.catalog for state in found)
        raise ServerError(f"several servers run ({catalogs}); say which with --catalog")
    return found[0]
