"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "CatalogOption",
    "KOption",
    "RuntimeOption",
    "SettingsOption",
    "StoreOption",
    "StrictOption",
    "WorkspaceOption",
]

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
