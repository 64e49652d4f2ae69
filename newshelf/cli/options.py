"""Options that several verbs share.

Verbs that tell "no" from "could not": a refusal has an exit code of its own.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from newshelf.errors import NewshelfError

CatalogOption = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        metavar="DIR|FILE",
        help="A catalogue, or a shop's export; without it, the drawn sample.",
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
        help="Where the artifacts go.",
        show_default=".newshelf/NAME",
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--model-store", metavar="DIR", help="Where the archives go.", show_default="model_store"
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a catalogue that has a bad row.")
]
KOption = Annotated[int, typer.Option("-k", help="How many products.")]
RuntimeOption = Annotated[
    str | None,
    typer.Option(help="auto, onnxruntime, openvino or torchscript, whatever the settings say."),
]


_REFUSED = 2


class Refusing(TyperGroup):
    """Ends with 2 when something is not right, so that nothing was done or changed."""

    def invoke(self, ctx: Any) -> Any:
        """See ``click.Command``."""
        try:
            return super().invoke(ctx)
        except NewshelfError as error:
            if ctx.find_root().params.get("debug"):
                raise
            typer.echo(f"error: {error.message}", err=True)
            raise typer.Exit(_REFUSED) from error


def refusing_group(about: str) -> typer.Typer:
    """Verbs that change something, or refuse.

    Args:
        about: what they are for, in a sentence.
    """
    return typer.Typer(
        cls=Refusing,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help=f"{about} Exit code 2: refused, and nothing was changed.",
    )
