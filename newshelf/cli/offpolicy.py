"""``offpolicy``: what a version of the recommender would have earned, from recorded answers."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer

from newshelf.cli.console import CatalogOption, WorkspaceOption, make_console
from newshelf.cli.rollout import controller_plan
from newshelf.report.page import ReportTable, print_table

if TYPE_CHECKING:
    from newshelf.serving.protocol import Predictor
    from newshelf.store.records import Exposure, StoredFeedback

_MAX_HISTORY = 50
_BATCH = 32
_Events = Mapping[str, Sequence[tuple[datetime, str]]]
"""Times and products of each unit, oldest first."""


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
    from newshelf.rollout.operations import open_rollouts
    from newshelf.rollout.versions import find_archive

    console = make_console()
    with open_rollouts(controller_plan(catalog, workspace)) as (store, plan):
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
