"""``./run test`` and ``./run check``: the command line of the tests."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from newshelf.cli.console import RootGroup, make_console
from newshelf.pipeline.workspace import ROOT

app = typer.Typer(
    cls=RootGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(
    ctx: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Unit and contract tests only, without TorchServe.")
    ] = False,  # noqa: PT028 - a verb, no test
) -> None:
    """Run the tests; passes further arguments to pytest.

    Example: `./run test --quick -k catalog`
    """
    raise typer.Exit(run_tests(ctx.args, quick=quick))


@app.command()
def check() -> None:
    """Run ruff, mypy, the import rules, and the spelling and prose checks.

    Example: `./run check`
    """
    failed = run_checks(make_console())
    typer.echo(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    raise typer.Exit(1 if failed else 0)


CHECKS: dict[str, tuple[str, ...]] = {
    "style": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    # Its cache keeps the name of a module that was missing when the cache was written.
    "imports": ("lint-imports", "--no-cache"),
    "spelling": ("codespell",),
    "prose": ("pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_prose.py"),
}


def run_tests(arguments: Sequence[str], *, quick: bool = False) -> int:
    """Run pytest in processes, and return its exit code; a shared server has one process."""
    # Many tests wait, so four keep two cores busy; a thread per core each would slow all down.
    env = {"OMP_NUM_THREADS": "1", **os.environ}
    # Groups run in the order of tests/conftest.py, the longest first. Without restarts a process
    # that dies ends the run: pytest-xdist 3.8.0 would replace it and then wait forever for the
    # tests of the dead one.
    options = ["-n4", "--dist=loadgroup", "--no-loadscope-reorder", "--max-worker-restart=0"]
    command = ("pytest", *options, *(["--ignore=tests/e2e"] if quick else []), *arguments)
    return subprocess.call([sys.executable, "-m", *command], cwd=ROOT, env=env)


def run_checks(console: Console) -> list[str]:
    """Run all checks at the same time, and return the names of those that failed."""
    started = {
        name: subprocess.Popen(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for name, (program, *arguments) in CHECKS.items()
    }  # fmt: skip
    for name, process in started.items():
        console.rule(f"{name}: {' '.join(CHECKS[name])}", align="left")
        typer.echo(process.communicate()[0], nl=False)
    return [name for name, process in started.items() if process.returncode != 0]


if __name__ == "__main__":
    app(prog_name="./run")
