"""``./run bench NAME``: the command line of the benchmarks."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from newshelf.cli.console import RootGroup, make_console

app = typer.Typer(
    cls=RootGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Benchmark methods on real catalogues, the server against its peers, a GPU, the event "
    "store, "
    "the gateway, the statistics of rollouts and the load generator.",
)
loadtest = typer.Typer(no_args_is_help=True, help="Verify the load generator's figures.")
app.add_typer(loadtest, name="loadtest")

Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="A task to run; repeatable. Others keep results."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The report; results and figures go next to it.",
        show_default="docs/benchmarks/NAME.md",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="A folder of catalogues.",
        show_default="../shared/data next to the repository",
    ),
]
Running = Annotated[Path | None, typer.Option(metavar="DIR", help="Of the running server.")]


@app.command()
def transfer(
    only: Only = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method.")] = 3,
    data: Data = None,
    kept_back: Annotated[
        Path | None,
        typer.Option(
            "--kept-back",
            metavar="DIR",
            help="A folder like it with held-out parts, which replace the tasks' own splits.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Compare every method of transfer learning with its baselines.

    Prints method, baseline, ratio and goal, and writes the report. Exit code 1 when a task
    failed; a goal that was not reached is a result.

    Example: `./run bench transfer --only jewellery --seeds 3`
    """
    from benchmarks.transfer.command import run

    code = run(
        only or (),
        seeds=seeds,
        data=data,
        kept_back=kept_back,
        out=out,
        console=make_console(),
    )
    raise typer.Exit(code)


@app.command()
def serve(
    only: Only = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Length of one load.")] = 10.0,
    cores: Annotated[
        str | None,
        typer.Option(
            "--cores",
            metavar="N,N",
            help="The cores that servers and client share.",
            show_default="the first two",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="A catalogue whose pictures are sent.",
            show_default="../shared/data/home next to the repository, otherwise a drawn shop",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Load this server and its alternatives in turns on the same cores.

    Prints contender, ratio and goal, and writes the report. Needs wrk and Linux; creates the
    peers' environment (about 0.7 GB) if it is missing. Exit code 1 when a task failed; a goal
    that was not reached is a result.

    Example: `./run bench serve --only lite0 --rounds 2 --seconds 5`
    """
    from benchmarks.serve.command import run

    chosen = None if cores is None else _cores(cores)
    code = run(
        only or (),
        rounds=rounds,
        seconds=seconds,
        cores=chosen,
        data=data,
        out=out,
        console=make_console(),
    )
    raise typer.Exit(code)


class GpuDevice(StrEnum):
    """Device of ``./run bench gpu``."""

    CUDA = "cuda"
    CPU = "cpu"


@app.command()
def gpu(
    only: Only = None,
    device: Annotated[
        GpuDevice,
        typer.Option("--device", help="`cpu` rehearses everything on tiny models."),
    ] = GpuDevice.CUDA,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry",
            help="Print the packages that a machine with torch alone lacks, and stop.",
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Measure parity, throughput, memory and recovery on a GPU.

    Builds models with random weights, so that nothing is downloaded. Prints figure and goal, and
    writes the report; without a GPU, the report says of each task that it was not measured. Exit
    code 1 when a task failed; a goal that was not reached is a result.

    Example: `./run bench gpu --only precision --only encoder`
    """
    if carry:
        from benchmarks.gpu.carry import print_packages

        print_packages(make_console())
        return
    from benchmarks.gpu.command import run

    raise typer.Exit(run(only or (), device=device.value, out=out, console=make_console()))


@app.command()
def store(
    only: Only = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each database.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Length of one load.")] = 20.0,
    per_second: Annotated[float, typer.Option(min=1, help="Answers to store per second.")] = 1000.0,
    busy_us: Annotated[
        float, typer.Option(min=0, help="Other computing of a gateway for each answer.")
    ] = 300.0,
    out: Out = None,
) -> None:
    """Measure how long answers wait until SQLite and PostgreSQL have stored them.

    Prints database, ratio and goal, and writes the report. Starts its own PostgreSQL. Exit
    code 1 when a task failed; a goal that was not reached is a result.

    Example: `./run bench store --only writes --rounds 1 --seconds 5`
    """
    from benchmarks.store.command import run

    code = run(
        only or (),
        rounds=rounds,
        seconds=seconds,
        per_second=per_second,
        busy_us=busy_us,
        out=out,
        console=make_console(),
    )
    raise typer.Exit(code)


@app.command()
def gateway(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Length of one load.")] = 5.0,
    cores: Annotated[
        str, typer.Option(metavar="N,N", help="The gateway's core, and that of stub and client.")
    ] = "0,1",
) -> None:
    """Measure what the gateway adds to a request, with and without the event store.

    Prints latency and throughput of a gateway on one core in front of a stub on another.
    """
    from benchmarks.gateway.measure import run

    chosen = _cores(cores)
    if len(chosen) != 2:  # noqa: PLR2004 - one each
        raise typer.BadParameter("two cores are needed, such as 0,1")
    run((chosen[0], chosen[1]), rounds=rounds, seconds=seconds, console=make_console())


@app.command()
def shelf(
    only: Only = None,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions in fresh processes.")] = 3,
    out: Out = None,
) -> None:
    """Measure a million products, changes of a running server, and embedding by Ray.

    `live` needs a running server (./run serve --detach), `embed` the sample's archive (./run
    archive). `scale` draws the catalogue and builds
    its index if it is missing (4 GB, about ten minutes on two cores). Prints figure and goal, and
    writes the report. Exit code 1 when a task failed; a goal that was not reached is a result.

    Example: `./run bench shelf --only scale`
    """
    from benchmarks.shelf.command import run

    raise typer.Exit(run(only or (), rounds=rounds, out=out, console=make_console()))


@app.command()
def retrain(
    only: Only = None,
    seeds: Annotated[int, typer.Option(min=1, help="Drawn shops of each task.")] = 3,
    data: Data = None,
    out: Out = None,
) -> None:
    """Simulate weeks of retraining, worse candidates, and robots that act as shoppers.

    Prints what is gained or lifted, and writes the report. An interrupted run resumes at the next
    part. Exit code 1 when a task failed; a goal that was not reached is a result.

    Example: `./run bench retrain --only weeks --seeds 1`
    """
    from benchmarks.retrain.command import run

    raise typer.Exit(run(only or (), seeds=seeds, data=data, out=out, console=make_console()))


@app.command()
def supervision(
    rounds: Annotated[int, typer.Option(min=1, help="Kills of each process.")] = 10,
    per_second: Annotated[float, typer.Option(min=1, help="Recommendations per second.")] = 50.0,
    catalog: Running = None,
    workspace: Running = None,
) -> None:
    """Kill each process of a running server in turn, while shoppers call it.

    Prints how long each is away, and which requests and events were lost. Exit code 1 when a goal
    was not reached.

    Example: `./run serve --detach && ./run bench supervision --rounds 3`
    """
    from benchmarks.supervision.kills import run

    reached = run(catalog, workspace, rounds=rounds, per_second=per_second, console=make_console())
    raise typer.Exit(0 if reached else 1)


@app.command()
def overload(
    seconds: Annotated[float, typer.Option(min=1, help="Length of one load.")] = 40.0,
    catalog: Running = None,
    workspace: Running = None,
    out: Out = None,
) -> None:
    """Offer a running server three times what it can answer, through the proxy.

    Starts the proxy in front of the gateway, finds the capacity with clients that wait for their
    answers, and then offers 0.5, 1 and 3 times as much, whatever happens. Prints figure and goal,
    and writes the report. Exit code 1 when the task failed; a goal that was not reached is a
    result.

    Example: `./run bench overload --seconds 30`
    """
    from benchmarks.overload.command import run

    raise typer.Exit(run(catalog, workspace, seconds=seconds, out=out, console=make_console()))


class Simulation(StrEnum):
    """A simulation of ``./run bench rollout``."""

    DECISIONS = "decisions"
    SEQUENCES = "sequences"
    MISMATCH = "mismatch"
    LATENCIES = "latencies"


@app.command()
def rollout(
    what: Annotated[Simulation, typer.Argument(help="The simulation.")] = Simulation.DECISIONS,
    rollouts: Annotated[
        int, typer.Option(min=1, help="Simulated rollouts of each A/A row of `decisions`.")
    ] = 1000,
) -> None:
    """Simulate rollouts, and check what their statistics promise.

    `decisions` writes docs/benchmarks/rollout.md; `sequences` (peeking), `mismatch`
    (sample-ratio mismatch) and `latencies` (a p99 at its limit) print the figures of
    docs/rollout.md.
    """
    from benchmarks.rollout import decisions, latencies, mismatch, sequences

    console = make_console()
    match what:
        case Simulation.DECISIONS:
            decisions.run(rollouts, console)
        case Simulation.SEQUENCES:
            sequences.run(console)
        case Simulation.MISMATCH:
            mismatch.run(console)
        case Simulation.LATENCIES:
            latencies.run(console)


@loadtest.command()
def confirm(
    folder: Annotated[Path, typer.Argument(help="The output of `./run loadtest saturate`.")],
    workspace: Running = None,
    catalog: Running = None,
    token: Annotated[
        str | None, typer.Option(help="Used instead of the running server's token.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of one load.")] = 15.0,
) -> None:
    """Confirm the rate found by `./run loadtest saturate` with wrk.

    Sends the same requests to the same server from connections that pause at random, bisects
    the greatest rate within the same limit, and prints the ratio. Exit code 1 when the rates
    differ by more than 15 %.
    """
    from benchmarks.loadtest import confirm_rate

    raise typer.Exit(confirm_rate(folder, workspace, catalog, token, seconds))


@loadtest.command()
def saturate(
    seconds: Annotated[float, typer.Option(min=1, help="Length of one run.")] = 60.0,
) -> None:
    """Search the greatest rate of a server whose service time is known, three times."""
    from benchmarks.loadtest import saturate_known

    saturate_known(seconds)


@loadtest.command()
def compare(
    seconds: Annotated[float, typer.Option(min=1, help="Length of one run.")] = 60.0,
    trials: Annotated[int, typer.Option(min=1, help="Pairs to compare.")] = 20,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Receives the records of the pairs.")
    ] = None,
) -> None:
    """Compare pairs of runs of one version, and with a version that is 10 % slower."""
    from benchmarks.loadtest import compare_known

    compare_known(seconds, trials, keep)


def _cores(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of cores, such as 0,1") from error


if __name__ == "__main__":
    app(prog_name="./run bench")
