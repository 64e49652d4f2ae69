"""``rollout``, ``offpolicy``: a new version; ``events``, ``units``: what is kept of shoppers."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer

from newshelf.cli.console import (
    CatalogOption,
    SettingsOption,
    WorkspaceOption,
    make_console,
    served_workspace,
    verb_group,
)
from newshelf.errors import SettingsError
from newshelf.report.page import ReportTable, print_table
from newshelf.server.program import ControllerPlan, read_controller_plan, read_gateway_plan

if TYPE_CHECKING:
    from newshelf.rollout.operations import Command
    from newshelf.serving.protocol import Predictor
    from newshelf.store.records import Exposure, StoredFeedback
    from newshelf.store.store import EventStore
    from newshelf.store.units import UnitRepository

_MAX_HISTORY = 50
_BATCH = 32
_Events = Mapping[str, Sequence[tuple[datetime, str]]]
"""Times and products of each unit, oldest first."""
_REFUSED = "Exit code 2: refused; nothing was changed."

rollout = verb_group(
    f"Compare a new version with the one that is served, and promote the better. {_REFUSED}",
    refuses=True,
)
events = verb_group(f"Exposures and feedback of shoppers. {_REFUSED}", refuses=True)
units = verb_group(f"What is kept about a shopper or visitor. {_REFUSED}", refuses=True)

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Name of the rollout.", show_default="the last one"),
]
UnitArgument = Annotated[
    str, typer.Argument(metavar="UNIT", help="The shopper's id, as the front end sends it.")
]


@contextmanager
def open_rollouts(
    catalog: Path | None, workspace: Path | None
) -> Iterator[tuple["EventStore", ControllerPlan]]:
    """Open the store of a controller's rollouts and events; see ``served_workspace``."""
    from newshelf.store.store import EventStore

    plan = read_controller_plan(served_workspace(catalog, workspace).controller)
    with EventStore.open(plan.store_url) as store:
        yield store, plan


@rollout.command()
def start(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="See configs/rollout.yaml.")],
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the rollout.", show_default="that of the file"),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Start a rollout: load and check the challenger, shadow requests, then ramp it up.

    Example: `./run rollout start configs/rollout.yaml --name spring`
    """
    from newshelf.rollout.operations import start_rollout
    from newshelf.rollout.plan import load_plan
    from newshelf.rollout.versions import TorchServeVersions

    planned = load_plan(plan)
    with open_rollouts(catalog, workspace) as (store, paths):
        served = TorchServeVersions(paths.torchserve, paths.model_store, paths.question).default
        state = start_rollout(store, served, paths.model_store, planned, name or plan.stem)
    console = make_console()
    console.print(f"{state.rollout}: {planned.control} against {planned.challenger}", markup=False)
    console.print("The challenger is loaded and checked first; see ./run rollout status.")


@rollout.command()
def status(
    name: NameArgument = None, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Show phase, step, share, metrics with their intervals, guardrails and reason.

    Example: `./run rollout status`
    """
    from newshelf.rollout.controller import host_obstacles
    from newshelf.rollout.history import read_snapshot, show_rollout
    from newshelf.rollout.operations import find_rollout

    console = make_console()
    with open_rollouts(catalog, workspace) as (store, _):
        row = find_rollout(store, name)
        last = store.rollouts.last_snapshot(row.name)
        show_rollout(console, row, None if last is None else read_snapshot(last))
        hosts = host_obstacles(store, row)
    for host, obstacle in hosts.items() if len(hosts) > 1 else ():
        console.print(f"  host {host}: {obstacle or 'ready'}", markup=False)


_CHANGES: "Mapping[str, tuple[Command, str]]" = {
    "pause": ("pause", "Stay at the current step; guardrails still end a harmful challenger."),
    "resume": ("resume", "Resume a paused rollout and acknowledge the signals that paused it."),
    "promote": ("promote", "Serve the challenger to everybody, without waiting for a decision."),
    "abort": ("abort", "End a running rollout: control answers everybody."),
    "rollback": ("abort", "Return to control, even after the challenger was promoted."),
}


def _change(
    context: typer.Context,
    name: NameArgument = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    from newshelf.rollout.operations import change_rollout, find_rollout

    command, _ = _CHANGES[context.command.name or ""]
    with open_rollouts(catalog, workspace) as (store, _):
        state = change_rollout(store, find_rollout(store, name).name, command)
    make_console().print(f"{state.rollout}: {state.phase}, {state.reason}", markup=False)


for _verb, (_, _about) in _CHANGES.items():
    rollout.command(_verb, help=f"{_about}\n\nExample: `./run rollout {_verb}`")(_change)


@rollout.command()
def report(
    name: NameArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File of the page.", show_default="in the workspace"
        ),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write an HTML page: what happened, why, and every metric over time.

    Example: `./run rollout report --out spring.html`
    """
    from newshelf.rollout.operations import find_rollout
    from newshelf.rollout.report import write_report

    with open_rollouts(catalog, workspace) as (store, _):
        row = find_rollout(store, name)
        path = out or served_workspace(catalog, workspace).rollout / f"{row.name}.html"
        write_report(store, row, path)
    make_console().print(str(path), markup=False)


@events.command()
def export(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A .parquet, .csv or .tsv file; its rows stay."),
    ],
    settings: SettingsOption = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Add feedback to a catalogue's events, to train on; rows that are there stay.

    Units in quarantine are left out.

    Example: `./run events export shop/events.parquet`
    """
    from newshelf.cli.pipeline import settings_from
    from newshelf.store.export import recorded_events, write_events

    console = make_console()
    with (
        open_rollouts(catalog, workspace) as (store, _),
        console.status("writing the events …"),
    ):
        robots = settings_from(settings).robots
        written = write_events(recorded_events(store, robots), path)
    console.print(f"{written:,} new events → {path}", markup=False)


@events.command()
def quarantine(
    release: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="Count these events, whoever sent them."),
    ] = None,
    settings: SettingsOption = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """List units and keys that behave like robots: their feedback is kept, and not counted.

    Example: `./run events quarantine --release shop-terminal-3`
    """
    from newshelf.cli.pipeline import settings_from

    with open_rollouts(catalog, workspace) as (store, _):
        if release is not None:
            store.units.release(release)
        found = store.units.suspects(settings_from(settings).robots)
    for one in found:
        what = "events on a day" if one.item_id is None else f"days with {one.item_id}"
        typer.echo(
            f"{one.unit}: {one.found} {what}, limit {one.limit:g}; {one.events} do not count"
        )
    typer.echo(f"{len(found)} in quarantine")


@events.command()
def prune(
    keep_days: Annotated[
        float,
        typer.Option(min=2, max=36500, help="Age in days up to which both are kept.", metavar="N"),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Even if the machine's clock may be wrong.")
    ] = False,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Delete old exposures and feedback, also while serving; keep rollouts and reports.

    Example: `./run events prune --keep-days 180`
    """
    from newshelf.rollout.operations import prune_events

    console = make_console()
    before = datetime.now(UTC) - timedelta(days=keep_days)
    with (
        open_rollouts(catalog, workspace) as (store, plan),
        console.status("deleting …") as progress,
    ):
        removed = 0

        def report_progress(rows: int) -> None:
            nonlocal removed
            removed += rows
            progress.update(f"deleted {removed:,} rows …")

        pruned = prune_events(
            store,
            before,
            covariate_days=plan.settings.covariate_days,
            force=force,
            on_removed=report_progress,
        )
    console.print(
        f"deleted what was older than {before:%Y-%m-%d %H:%M} UTC: {pruned.exposures:,} answers, "
        f"{pruned.feedback:,} events, {pruned.shadow_answers:,} shadow answers"
    )


@units.command()
def show(
    unit: UnitArgument, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Print everything that is kept about a unit, as JSON.

    Example: `./run units show visitor-1`
    """
    import orjson

    with _units(catalog, workspace, unit) as (store, (stored,)):
        record = orjson.dumps(store.show(stored), default=lambda one: one.model_dump())
    typer.echo(record)


@units.command()
def merge(
    visitor: Annotated[
        str, typer.Argument(metavar="VISITOR", help="Id of the visitor who has logged in.")
    ],
    unit: UnitArgument,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Let what a visitor did belong to a unit's history.

    Example: `./run units merge visitor-1 account-77`
    """
    with _units(catalog, workspace, visitor, unit) as (store, (stored_visitor, stored)):
        store.merge(stored_visitor, stored)
    typer.echo(f"{visitor} is merged into {unit}")


@units.command()
def erase(
    unit: UnitArgument, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Erase everything about a unit and its visitors, and refuse their later events.

    Example: `./run units erase account-77`
    """
    with _units(catalog, workspace, unit) as (store, (stored,)):
        erased = store.erase(stored)
    typer.echo(
        f"erased {erased.exposures:,} answers and {erased.feedback:,} events of {unit} and "
        f"{erased.visitors:,} visitors merged into it"
    )


@contextmanager
def _units(
    catalog: Path | None, workspace: Path | None, *named: str
) -> Iterator[tuple["UnitRepository", list[str]]]:
    """Open the store of a workspace, and return the ids under which it has the named units."""
    from newshelf.catalog.schema import clean_id
    from newshelf.gateway.histories import pseudonyms
    from newshelf.store.store import EventStore

    plan = read_gateway_plan(served_workspace(catalog, workspace).gateway_plan)
    pseudonym = pseudonyms(plan.pseudonym_key)
    try:
        stored = [pseudonym(clean_id(name)) for name in named]
    except ValueError as error:
        raise SettingsError(f"a unit's id {error}") from error
    with EventStore.open(plan.store_url) as store:
        yield store.units, stored


def offpolicy(
    target: Annotated[
        str, typer.Option("--target", metavar="VERSION", help="A version in the model store.")
    ],
    rules: Annotated[
        Path | None,
        typer.Option("--rules", metavar="FILE", help="Rules that it would have followed."),
    ] = None,
    reward: Annotated[
        Literal["click", "cart", "purchase"], typer.Option(help="The event that counts.")
    ] = "click",
    rollout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only answers of this rollout.", show_default="all"),
    ] = None,
    catalog: CatalogOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Estimate from interleaved answers what a version, or rules, would have earned.

    Refuses to estimate from fewer than 100 effective products.

    Example: `./run offpolicy --target 1.2 --rules configs/rules.toml --reward purchase`
    """
    from newshelf.cli.rules import open_recommender, rules_for
    from newshelf.rollout.off_policy import drawn_answers, estimate, shown_products
    from newshelf.rollout.versions import find_archive

    console = make_console()
    with open_rollouts(catalog, workspace) as (store, plan):
        archive = find_archive(plan.model_store, target)
        with console.status("reading answers and events …"):
            answers = drawn_answers(store.exposures(rollout))
            events, rewarded = _read(store.feedback(), reward)
    with (
        console.status(f"asking {target} for {len(answers):,} answers …"),
        open_recommender(archive) as served,
    ):
        recommender = served if rules is None else served.with_rules(rules_for(served, rules))
        asked = zip(answers, _rankings(recommender, answers, events), strict=True)
        rows = shown_products(asked, rewarded)
    found = estimate(rows)
    size = len(rows.reward) / len(answers)
    values = [
        f"{one * size:.4f}" for one in (rows.reward.mean(), found.value, found.low, found.high)
    ]
    drawn = [f"{len(rows.reward):,}", f"{found.effective_rows:,.0f}"]
    header = ("", f"{reward}s per answer", "95 % interval", "products", "of its choice")
    then = target if rules is None else f"{target} with {rules}"
    lines = [
        ("as recorded", values[0], "", drawn[0], ""),
        (
            then,
            values[1],
            f"{values[2]} … {values[3]}",
            f"{drawn[1]} effective",
            f"{rows.target.mean():.0%}",
        ),
    ]
    print_table(ReportTable(f"{len(answers):,} interleaved answers", header, lines), console)


def _read(
    feedback: Iterable["StoredFeedback"], reward: str
) -> tuple[_Events, set[tuple[str, str]]]:
    """Return every unit's events, and request and product of each reward."""
    events: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    rewarded = set()
    for one in feedback:
        events[one.unit].append((one.at, one.item_id))
        if one.event_type == reward and one.request_id is not None:
            rewarded.add((one.request_id, one.item_id))
    return {unit: sorted(found) for unit, found in events.items()}, rewarded


def _rankings(
    recommender: "Predictor", answers: Sequence["Exposure"], events: _Events
) -> Iterator[Sequence[str]]:
    """Yield what the version answers to each unit as it was then."""
    from newshelf.serving.protocol import RawRequest

    for start in range(0, len(answers), _BATCH):
        requests = [
            {
                "history": _history(events.get(one.unit, ()), one.at),
                "k": max(1, len(one.items)),
                **({} if one.placement is None else {"placement": one.placement}),
            }
            for one in answers[start : start + _BATCH]
        ]
        rows = [RawRequest.unhurried(orjson.dumps(request)) for request in requests]
        for answer in recommender.predict(rows):
            yield [item["id"] for item in orjson.loads(answer.body).get("items", ())]


def _history(events: Sequence[tuple[datetime, str]], before: datetime) -> list[str]:
    """Return the products of the last events before a moment, each once, oldest first."""
    past = events[: bisect_left(events, (before, ""))]
    newest_first = dict.fromkeys(item for _, item in reversed(past))
    return list(newest_first)[:_MAX_HISTORY][::-1]
