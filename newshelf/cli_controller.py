"""Which controller, and so which event store, a verb means."""

from pathlib import Path

__all__ = ["controller_of"]


def controller_of(catalog: Path | None, workspace: Path | None) -> Path:
    """The file of a controller: of the only server that runs, unless one is named."""
    from newshelf.pipeline.find import only_server
    from newshelf.pipeline.workspace import open_workspace

    if catalog is None and workspace is None:
        return only_server(None, None).directory.parent / "rollout" / "controller.json"
    return open_workspace(catalog, override=workspace).controller
