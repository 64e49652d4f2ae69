"""Options that several verbs share, and groups of verbs with their exit codes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from newshelf.errors import NewshelfError
from newshelf.pipeline.workspace import Workspace, only_server, open_workspace
from newshelf.server.process import interruptible

CatalogOption = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        metavar="DIR|FILE",
        help="A catalogue or a shop's export; default: the drawn sample.",
        show_default=False,
    ),
]
SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="Settings (TOML).",
        show_default="configs/packaged.toml",
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Folder of the artifacts.",
        show_default=".newshelf/NAME",
    ),
]
LanguageOption = Annotated[
    Literal["en", "zh"] | None,
    typer.Option(
        "--language",
        help="Language of the drawn sample's texts; zh has a workspace of its own.",
        show_default="that of the settings: en",
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--model-store", metavar="DIR", help="Folder of the archives.", show_default="model_store"
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a catalogue that has a bad row.")
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(help="auto, onnxruntime, openvino or torchscript; overrides the settings."),
]
ModelOption = Annotated[Literal["encoder", "recommender"], typer.Option(help="Model under load.")]
ConcurrencyOption = Annotated[
    int,
    typer.Option("--clients", min=1, help="Concurrent clients, each of which awaits its answer."),
]


def served_workspace(catalog: Path | None, workspace: Path | None) -> Workspace:
    """Return a workspace: that of the only running server, unless one is named."""
    if catalog is None and workspace is None:
        workspace = only_server(None, None).directory.parent
    return open_workspace(catalog, override=workspace)


class VerbGroup(TyperGroup):
    """Prints an expected error in one line and exits with 1; ``--debug`` raises it."""

    exit_code = 1

    def invoke(self, ctx: Any) -> Any:
        """See ``click.Command``."""
        try:
            return super().invoke(ctx)
        except NewshelfError as error:
            if ctx.find_root().params.get("debug"):
                raise
            typer.echo(f"error: {error.message}", err=True)
            raise typer.Exit(self.exit_code) from error


class RootGroup(VerbGroup):
    """Unwinds on SIGTERM and SIGHUP as on Ctrl-C, and then exits with 130."""

    def invoke(self, ctx: Any) -> Any:
        """See ``click.Command``."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


class RefusingGroup(VerbGroup):
    """Exits with 2 after an expected error: nothing was done, so it is no verdict."""

    exit_code = 2


def verb_group(about: str, *, refuses: bool = False) -> typer.Typer:
    """Return a group of verbs; one that ``refuses`` exits with 2 after an expected error."""
    return typer.Typer(
        cls=RefusingGroup if refuses else VerbGroup,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help=about,
    )
