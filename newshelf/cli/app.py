"""The command line: one verb per job. The work is done elsewhere, and imported there.

``test`` and ``check``: the project's own tests and rules.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from newshelf.cli.loadtest import loadtest
from newshelf.cli.options import (
    CatalogOption,
    KOption,
    RuntimeOption,
    SettingsOption,
    StoreOption,
    StrictOption,
    WorkspaceOption,
)
from newshelf.cli.pipeline import catalog as catalog_verbs
from newshelf.cli.rollout import events, rollout
from newshelf.cli.serve import keys
from newshelf.cli.tuning import profile, tune
from newshelf.errors import NewshelfError
from newshelf.interrupts import interruptible
from newshelf.pipeline.workspace import ROOT


class VerbGroup(TyperGroup):
    """Prints expected errors in one line; ``--debug`` shows where they came from."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; exit codes are 1 after an error and 130 after Ctrl-C."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except NewshelfError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {error.message}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=VerbGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Newshelf: recommend products on the day they are first put on the shelf.",
    epilog="`./run bench` measures methods, server and event store: `./run bench --help`.",
)

app.add_typer(catalog_verbs, name="catalog")
app.add_typer(loadtest, name="loadtest")
app.add_typer(keys, name="keys")
app.add_typer(rollout, name="rollout")
app.add_typer(events, name="events")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Read by ``VerbGroup``."""


@app.command()
def sample(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Draw it into this new folder instead."),
    ] = None,
    seed: Annotated[int, typer.Option(help="With --out: another seed draws another shop.")] = 7,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Draw the sample catalogue: jewellery, clothing, home goods, and their shoppers.

    Example: `./run sample --out /tmp/shop --seed 3`
    """
    from newshelf.cli.pipeline import draw, update

    if out is not None:
        draw(out, seed)
    else:
        update("sample", None, settings, workspace)


@app.command()
def train(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    strict: StrictOption = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Train by so many processes of this machine (torchrun).")
    ] = 1,
) -> None:
    """Train the encoder and the scorer on a catalogue.

    A training that was broken off is gone on with.

    Example: `./run train --catalog shop --settings configs/production.toml`
    """
    from newshelf.cli.pipeline import update

    update("train", catalog, settings, workspace, strict=strict, processes=processes)


@app.command()
def evaluate(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="DIR",
            help="An earlier report of another model: tests which of the two is better.",
        ),
    ] = None,
) -> None:
    """Compare the trained model with simpler ones, on old and on new products.

    Prints the tables; report.html, report.md and report.json are kept in the workspace.

    Example: `./run evaluate --catalog shop --compare reports/last-month`
    """
    from newshelf.cli.pipeline import evaluate as run

    run(catalog, settings, workspace, compare)


@app.command()
def export(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Export the model to TorchScript and ONNX, and check that they compute the same.

    Example: `./run export`
    """
    from newshelf.cli.pipeline import update

    update("export", catalog, settings, workspace)


@app.command()
def archive(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
    runtime: RuntimeOption = None,
) -> None:
    """Pack the exported models into archives for TorchServe.

    Example: `./run archive --runtime torchscript`
    """
    from newshelf.cli.pipeline import update

    update("archive", catalog, settings, workspace, model_store=model_store, runtime=runtime)


@app.command()
def serve(
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    model_store: StoreOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="The first of six ports; 0 takes any free ones.",
            show_default="8080 and so on, and 8000 for the gateway",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave it running; ./run stop ends it.")
    ] = False,
    strict: StrictOption = False,
) -> None:
    """Do all that is needed to serve recommendations, and serve them until Ctrl-C.

    What is current is used again; what is not is made anew, and the reason told.

    Example: `./run serve --catalog shop --port 9080 --detach`
    """
    from newshelf.cli.serve import serve as run

    run(
        catalog, settings, workspace, model_store,
        port=port, runtime=runtime, detach=detach, strict=strict,
    )  # fmt: skip


@app.command()
def stop(catalog: CatalogOption = None, workspace: WorkspaceOption = None) -> None:
    """End the servers that run: all of them, or the one of a catalogue.

    Example: `./run stop`
    """
    from newshelf.cli.serve import stop as run

    run(catalog, workspace)


@app.command()
def status(catalog: CatalogOption = None, workspace: WorkspaceOption = None) -> None:
    """Tell what is served, where, and how its workers are; exit code 1 when nothing is.

    Example: `./run status`
    """
    from newshelf.cli.serve import status as run

    run(catalog, workspace)


@app.command()
def recommend(
    history: Annotated[
        list[str] | None,
        typer.Option("--history", metavar="ID", help="A product, oldest first; repeat it."),
    ] = None,
    k: KOption = 10,
    user: Annotated[str | None, typer.Option(metavar="ID", help="The shopper's id.")] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the running server for products that go with a history.

    Example: `./run recommend --history ring-7 --history scarf-12 -k 5`
    """
    from newshelf.cli.serve import recommend as run

    run(history or [], k, user, catalog, workspace)


@app.command()
def encode(
    title: Annotated[str | None, typer.Option(help="The product's title.")] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its picture: JPEG, PNG or WebP.")
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the running server for a product's embedding and labels.

    Example: `./run encode --title "jade bracelet" --image bracelet.jpg`
    """
    from newshelf.cli.serve import encode as run

    run(title, image, catalog, workspace)


app.command()(profile)
app.command()(tune)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(
    ctx: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Unit and contract tests only: starts no TorchServe.")
    ] = False,  # noqa: PT028 - a verb, no test
) -> None:
    """Run the tests; arguments that are not options of this verb are passed to pytest.

    Example: `./run test --quick -k catalog`
    """
    raise typer.Exit(run_tests(ctx.args, quick=quick))


@app.command()
def check() -> None:
    """Run ruff, mypy and the import rules.

    Example: `./run check`
    """
    from newshelf.cli.console import make_console

    failed = run_checks(make_console())
    typer.echo(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    raise typer.Exit(1 if failed else 0)


CHECKS: dict[str, tuple[str, ...]] = {
    "style": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    # Without its cache, which goes on naming a module that was missing when it was filled.
    "imports": ("lint-imports", "--no-cache"),
    "spelling": ("codespell",),
    "prose": ("pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_prose.py"),
}


def run_tests(arguments: Sequence[str], *, quick: bool = False) -> int:
    """Run pytest on two processes; a test group that shares a server stays on one.

    Args:
        arguments: passed to pytest.
        quick: leave out the end-to-end tests.

    Returns:
        pytest's exit code.
    """
    # Two processes with as many threads each as there are cores would only wait for
    # each other.
    env = {"OMP_NUM_THREADS": "1", **os.environ}
    # A process that dies ends the run: pytest-xdist would replace it, and then wait for ever
    # for the tests it had been given (seen with 3.8.0).
    options: tuple[str, ...] = ("-n", "2", "--dist", "loadgroup", "--max-worker-restart", "0")
    if quick:
        options += ("--ignore", "tests/e2e")
    command = ("pytest", *options, *arguments)
    return subprocess.call([sys.executable, "-m", *command], cwd=ROOT, env=env)


def run_checks(console: Console) -> list[str]:
    """Run every check, whatever the others say.

    Returns:
        The names of those that failed.
    """
    failed = []
    for name, (program, *arguments) in CHECKS.items():
        console.rule(f"{name}: {program} {' '.join(arguments)}".rstrip(), align="left")
        beside = Path(sys.executable).with_name(program)
        if subprocess.call([str(beside), *arguments], cwd=ROOT) != 0:
            failed.append(name)
    return failed
