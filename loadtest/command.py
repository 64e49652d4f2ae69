"""Commands of ``./run loadtest``; each returns the exit code."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loadtest.compare import compare, print_comparison, write_comparison
from loadtest.options import SECONDS, LoadOptions, LoadTarget, find_target, make_plan
from loadtest.record import RunRecord, read_record
from loadtest.recorder import LoadProgress
from loadtest.report import check_run, print_run, write_run
from loadtest.run import run_load
from loadtest.saturate import (
    RateGoal,
    RateSearch,
    Trial,
    print_saturation,
    saturate,
    trial_text,
    write_saturation,
)
from loadtest.scenarios import LoadPlan
from loadtest.server_metrics import ServerWatch, TorchServeProbe
from loadtest.slo import SloSet, read_slo
from loadtest.traffic import KINDS
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT

_SLO = {"gateway": "slo-gateway.yaml", "torchserve": "slo.yaml"}
_ERRORS = 0.001
"""Default limit of the error rate in a rate search."""


def run_scenario(scenario: str, options: LoadOptions, console: Console) -> int:
    """Run a load of one shape, report it and check it against the limits.

    Returns:
        0 if the limits are met, else 1.

    Raises:
        SetupError: the run cannot start.
    """
    limits = _limits(options)
    target = _target(options)
    plan = make_plan(options, target, scenario)
    record = _run(plan, target, options.command(scenario), console)
    return _report(record, limits, _folder(options, target, scenario), console)


def run_saturate(options: LoadOptions, resolution: float, console: Console) -> int:
    """Search for the greatest Poisson rate that meets the limit, and report it.

    Returns:
        0 if there is one, else 1.

    Raises:
        SetupError: as for ``run_scenario``.
    """
    goal = _goal(_limits(options))
    target = _target(options)
    plan = make_plan(replace(options, seconds=options.seconds or SECONDS["saturate"]), target,
                     "steady")  # fmt: skip
    search = RateSearch(plan.rate or 1.0, seconds=plan.seconds, resolution=resolution)
    command = options.command("saturate")
    runs: list[RunRecord] = []

    def measure(rate: float, seconds: float) -> RunRecord:
        # Different arrivals each time, so that the result does not depend on one set.
        again = replace(plan, rate=rate, seconds=seconds, seed=plan.seed + len(runs))
        runs.append(_run(again, target, command, console))
        if runs[-1].settings.get("interrupted"):
            # An interrupted run says nothing about its rate.
            raise KeyboardInterrupt
        return runs[-1]

    def report_trial(trial: Trial) -> None:
        console.print(trial_text(trial, goal), markup=False)

    found = saturate(measure, goal, search, report_trial)
    report = write_saturation(found, runs[-1], _folder(options, target, "saturate"))
    print_saturation(found, console)
    console.print(f"report: {report}", markup=False)
    return 0 if found.rate is not None else 1


def compare_runs(first: Path, second: Path, out: Path | None, console: Console) -> int:
    """Report whether the second run, B, is better or worse than the first, A.

    Returns:
        1 if it is worse, else 0.

    Raises:
        SettingsError: a file is not a record, or the runs cannot be compared.
    """
    a, b = read_record(first), read_record(second)
    found = compare(a, b)
    print_comparison(found, a, b, console)
    if out is not None:
        report = write_comparison(found, a, b, out)
        console.print(f"report: {report}", markup=False)
    return 1 if found.word == "worse" else 0


def report_again(path: Path, slo: str | None, out: Path | None, console: Console) -> int:
    """Report a record again and check it against limits.

    Returns:
        0 if the limits are met, else 1.

    Raises:
        SettingsError: the file is not a record, or the limits cannot be read.
    """
    record = read_record(path)
    limits = None if slo is None else read_slo(slo, {*KINDS, *record.kinds()})
    return _report(record, limits, out or path.resolve().parent, console)


def _report(record: RunRecord, limits: SloSet | None, folder: Path, console: Console) -> int:
    run = check_run(record, limits)
    report = write_run(run, folder)
    print_run(run, console)
    console.print(f"report: {report}", markup=False)
    return 0 if run.kept else 1


def _target(options: LoadOptions) -> LoadTarget:
    return find_target(
        options.host,
        via=options.via,
        catalog=options.catalog,
        workspace=options.workspace,
        token=options.token,
    )


def _limits(options: LoadOptions) -> SloSet:
    return read_slo(options.slo or str(ROOT / "loadtest" / _SLO[options.via]), KINDS)


def _goal(limits: SloSet) -> RateGoal:
    if not limits.every.latencies:
        raise SettingsError(
            "saturate needs a latency limit for all requests: --slo p99=100ms, or a file with "
            "all.p99_ms"
        )
    errors = limits.every.error_rate
    return RateGoal(limits.every.latencies[-1], _ERRORS if errors is None else errors)


def _folder(options: LoadOptions, target: LoadTarget, name: str) -> Path:
    return options.out or target.folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _run(plan: LoadPlan, target: LoadTarget, command: str, console: Console) -> RunRecord:
    probe = None if target.state is None else TorchServeProbe(target.state)
    with (
        nullcontext() if probe is None else ServerWatch(probe) as watch,
        _progress(plan, console) as progress,
    ):
        record = run_load(plan, command=command, progress=progress)
    if watch is None:
        return record
    samples = watch.samples(record.started_at.timestamp(), record.seconds)
    return record.model_copy(update={"server": samples})


@contextmanager
def _progress(plan: LoadPlan, console: Console) -> Iterator[Callable[[LoadProgress], None]]:
    """Show the progress in one line of the terminal."""
    what = f"{plan.rate:g}/s" if plan.rate is not None else f"{plan.clients} clients"
    with console.status(f"{plan.scenario}, {what}: drawing requests …") as status:

        def show(now: LoadProgress) -> None:
            if now.at_s < 0:
                status.update(f"{plan.scenario}, {what}: warming up")
                return
            bad = f", {now.errors} errors" if now.errors else ""
            bad += f", {now.dropped} dropped" if now.dropped else ""
            status.update(
                f"{plan.scenario}, {what}: {min(now.at_s, now.seconds):.0f} of {now.seconds:g} s, "
                f"{now.right} answered{bad}"
            )

        yield show
