"""Verbs that tell "no" from "could not": a refusal has an exit code of its own."""

from typing import Any

import typer
from typer.core import TyperGroup

from newshelf.errors import NewshelfError

__all__ = ["Refusing", "refusing_group"]

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
