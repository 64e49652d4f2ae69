"""``loadtest``: options and verbs of the load tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from newshelf.cli.console import WorkspaceOption, make_console, verb_group

loadtest = verb_group(
    "Load-test a running server against SLOs.\n\n"
    "Exit code 0: the limits are met; 1: they are not; 2: the test cannot start.",
    refuses=True,
)

Rate = Annotated[
    float | None,
    typer.Option(metavar="N", help="Open loop: requests/s, Poisson.", show_default="10"),
]
Clients = Annotated[
    int | None,
    typer.Option(metavar="N", help="Closed loop instead: concurrent clients."),
]
Think = Annotated[
    float | None,
    typer.Option(metavar="S", help="With --clients: mean pause after an answer.", show_default="0"),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="Length of the measurement.",
        show_default="30; ramp, spike and saturate 60; day 300; soak 600",
    ),
]
WarmUp = Annotated[
    float | None,
    typer.Option(
        "--warm-up", metavar="S", help="Warm-up before the measurement.", show_default="5"
    ),
]
Processes = Annotated[
    int | None, typer.Option(metavar="N", help="Processes that share the load.", show_default="1")
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Equal seeds send the same requests at the same times.", show_default="7"
    ),
]
Timeout = Annotated[
    float | None, typer.Option(metavar="S", help="Timeout of a response.", show_default="30")
]
MaxInFlight = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Maximum requests in flight; excess arrivals are dropped and counted.",
        show_default="1000",
    ),
]
Mix = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=WEIGHT,…",
        help="Weights of the kinds of request: 'recommend=10,search=3'; TorchServe has others.",
    ),
]
Traffic = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="units=1000, taste=0.5, bad_share=0 …; repeatable."),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="ramp: start; spike: height, begin, end; day: trough, days; repeatable.",
    ),
]
_SLO_HELP = "Limits (YAML), or p99=50ms,errors=0.1%."
Slo = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help=_SLO_HELP, show_default="loadtest/slo-gateway.yaml, or slo.yaml"
    ),
]
_OUT_HELP = "Folder of record.json, report.html and plots."
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help=_OUT_HELP, show_default="loadtest/NAME-TIME in the workspace"
    ),
]
Catalog = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        metavar="DIR",
        help="Selects a server if several run; with --host, the requests are drawn from it.",
    ),
]
Via = Annotated[
    Literal["gateway", "torchserve"],
    typer.Option(help="Shoppers of the gateway, or requests to the models alone."),
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Server on another machine.", show_default="the running server"
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        envvar="NEWSHELF_TOKEN",
        help="Token of --host; otherwise that of the running server.",
    ),
]

_SCENARIOS = {
    "steady": "Constant rate.",
    "ramp": "Linear increase from a tenth of the rate to the rate.",
    "spike": "The rate, a spike of four times the rate, and the rate again.",
    "soak": "Constant rate for a long time, to find leaks and slowdowns.",
    "day": "Rate of a day: low at night, high at noon.",
}


def _scenario(
    context: typer.Context,
    rate: Rate = None,
    clients: Clients = None,
    think: Think = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    processes: Processes = None,
    seed: Seed = None,
    timeout: Timeout = None,
    max_in_flight: MaxInFlight = None,
    mix: Mix = None,
    traffic: Traffic = None,
    shape: Shape = None,
    slo: Slo = None,
    out: Out = None,
    catalog: Catalog = None,
    workspace: WorkspaceOption = None,
    host: Host = None,
    token: Token = None,
    via: Via = "gateway",
) -> None:
    from loadtest.command import run_scenario
    from loadtest.options import LoadOptions

    options = LoadOptions(
        via, rate, clients, think, seconds, warm_up, processes, seed, timeout, max_in_flight,
        mix, traffic or (), shape or (), slo, out, catalog, workspace, host, token,
    )  # fmt: skip
    name = context.command.name or ""
    _run(lambda console: run_scenario(name, options, console))


for _name, _about in _SCENARIOS.items():
    loadtest.command(
        _name, help=f"{_about}\n\nExample: `./run loadtest {_name} --rate 20 --slo p99=200ms`"
    )(_scenario)


@loadtest.command()
def saturate(
    rate: Rate = None,
    resolution: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Precision of the search, as a share of the rate."),
    ] = 0.03,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    processes: Processes = None,
    seed: Seed = None,
    timeout: Timeout = None,
    max_in_flight: MaxInFlight = None,
    mix: Mix = None,
    traffic: Traffic = None,
    slo: Slo = None,
    out: Out = None,
    catalog: Catalog = None,
    workspace: WorkspaceOption = None,
    host: Host = None,
    token: Token = None,
    via: Via = "gateway",
) -> None:
    """Find the highest Poisson rate that meets a latency limit, starting from --rate.

    Example: `./run loadtest saturate --slo p99=200ms --seconds 30`
    """
    from loadtest.command import run_saturate
    from loadtest.options import LoadOptions

    options = LoadOptions(
        via=via, rate=rate, seconds=seconds, warm_up=warm_up, processes=processes, seed=seed,
        timeout=timeout, max_in_flight=max_in_flight, mix=mix, traffic=traffic or (), slo=slo,
        out=out, catalog=catalog, workspace=workspace, host=host, token=token,
    )  # fmt: skip
    _run(lambda console: run_saturate(options, resolution, console))


@loadtest.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Record of a run.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Record of another version.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of report.html.")
    ] = None,
) -> None:
    """Test whether B is better or worse than A.

    Exit code 1 if it is worse.

    Example: `./run loadtest compare old/record.json new/record.json --out compared`
    """
    from loadtest.command import compare_runs

    _run(lambda console: compare_runs(first, second, out, console))


@loadtest.command()
def report(
    record: Annotated[Path, typer.Argument(metavar="RECORD.json", help="Record of a run.")],
    slo: Annotated[str | None, typer.Option(metavar="FILE", help=_SLO_HELP)] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", show_default="the record's", help=_OUT_HELP),
    ] = None,
) -> None:
    """Write the report of a recorded run, such as one of Locust, and check its limits.

    Example: `./run loadtest report record.json --slo p99=200ms --out report`
    """
    from loadtest.command import report_again

    _run(lambda console: report_again(record, slo, out, console))


def _run(job: "Callable[[Console], int]") -> None:
    raise typer.Exit(job(make_console()))
