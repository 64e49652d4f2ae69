"""``rules``: checks the shop's rules, and shows what they change in an answer."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from newshelf.cli.console import (
    CatalogOption,
    SettingsOption,
    WorkspaceOption,
    make_console,
    verb_group,
)
from newshelf.cli.pipeline import settings_from
from newshelf.errors import SetupError
from newshelf.pipeline.workspace import ROOT, Workspace, open_workspace
from newshelf.report.page import ReportTable, print_table

if TYPE_CHECKING:
    from newshelf.serving.recommender_predictor import RecommenderPredictor
    from newshelf.serving.rules import RuleSet

_RULES = ROOT / "configs" / "rules.toml"
_MAX_HISTORY = 50
_Answer = Sequence[Mapping[str, Any]]

rules = verb_group("Rules of the shop: boost, bury, pin and hide products.")

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Rules (TOML).", show_default="configs/rules.toml")
]


@rules.command()
def check(
    file: FileArgument = _RULES, catalog: CatalogOption = None, workspace: WorkspaceOption = None
) -> None:
    """Check a file of rules, and count the products that each rule matches.

    Example: `./run rules check configs/rules.toml`
    """
    console = make_console()
    with _served(open_workspace(catalog, override=workspace)) as recommender:
        found = rules_for(recommender, file)
        live, now_s = recommender.with_rules(found).live, time.time()
        counts = [
            int(live.alive[live.rules.positions(at, now_s)].sum()) if live.rules else 0
            for at in range(len(found.rules))
        ]
    rows = [
        (rule.name, rule.action, ", ".join(rule.placements or ("all",)), f"{count:,}")
        for rule, count in zip(found.rules, counts, strict=True)
    ]
    header = ("rule", "action", "placements", "products")
    if rows:
        print_table(ReportTable("", header, rows, text_columns=(1, 2)), console)
    console.print(f"{file} has no mistake", markup=False)


@rules.command()
def preview(
    file: FileArgument = _RULES,
    placement: Annotated[
        str | None, typer.Option(metavar="NAME", help="Placement of the answer.")
    ] = None,
    history: Annotated[str, typer.Option(metavar="ID,…", help="Products, the oldest first.")] = "",
    unit: Annotated[
        str | None, typer.Option(metavar="ID", help="A shopper, whose history counts.")
    ] = None,
    catalog: CatalogOption = None,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show an answer without and with the rules, side by side.

    A running server is neither asked nor changed.

    Example: `./run rules preview --placement home --history ring-7,scarf-12`
    """
    from newshelf.gateway.placements import Placements
    from newshelf.serving.rules import RuleSet
    from newshelf.store.store import EventStore

    chosen = settings_from(settings, None)
    ids = [one for one in history.split(",") if one]
    opened = open_workspace(catalog, override=workspace, language=chosen.sample.language)
    if unit is not None:
        with EventStore.open(opened.store_url(chosen)) as store:
            newest_first = [one.item_id for one in store.units.history(unit, _MAX_HISTORY)]
        ids = [*dict.fromkeys(newest_first)][::-1]
    places = Path(chosen.gateway.placements or ROOT / "configs" / "placements.toml")
    request = Placements(places, chosen.archive.limits.max_k).completed(
        {"history": ids} if placement is None else {"history": ids, "placement": placement}
    )
    request.pop("cursor", None)
    with _served(opened) as recommender:
        found = rules_for(recommender, file)
        before, after = (_items(recommender.with_rules(one), request) for one in (RuleSet(), found))
        titles = {item["id"]: _title(recommender, item["id"]) for item in (*before, *after)}
    table = ReportTable(
        f"{placement or 'no placement'}, history of {len(ids)}",
        ("", "without rules", "with rules", "", "by"),
        _side_by_side(before, after, titles),
        text_columns=(1, 2, 3, 4),
    )
    print_table(table, make_console())


def _side_by_side(
    before: _Answer, after: _Answer, titles: Mapping[str, str]
) -> list[tuple[str, ...]]:
    old = {item["id"]: place for place, item in enumerate(before)}
    new = {item["id"] for item in after}
    rows: list[tuple[str, ...]] = []
    for place in range(max(len(before), len(after))):
        left, right, change, by = "", "", "", ""
        if place < len(before):
            item = before[place]["id"]
            left = titles[item] + ("" if item in new else " (gone)")
        if place < len(after):
            item = after[place]["id"]
            right, by = titles[item], ", ".join(after[place].get("rules", ()))
            change = _change(place, old.get(item), pinned=after[place]["source"] == "pinned")
        rows.append((str(place + 1), left, right, change, by))
    return rows


def _change(place: int, old: int | None, *, pinned: bool) -> str:
    moved = "new" if old is None else f"{'↑' if old > place else '↓'} {abs(old - place)}"
    words = ["pinned"] * pinned + [moved] * (old != place)
    return ", ".join(words)


def _items(recommender: "RecommenderPredictor", request: Mapping[str, object]) -> _Answer:
    from newshelf.serving.protocol import RawRequest

    [answer] = recommender.predict([RawRequest.unhurried(orjson.dumps(request))])
    body = orjson.loads(answer.body)
    if "items" not in body:
        raise SetupError(f"there is no answer to preview: {body['message']}")
    items: _Answer = body["items"]
    return items


def _title(recommender: "RecommenderPredictor", item: str) -> str:
    live = recommender.live
    table, row = live.positions.at(int(live.rows([item])[0]))
    return f"{table.title[row]} ({item})" if table.title[row] else item


def rules_for(recommender: "RecommenderPredictor", file: Path) -> "RuleSet":
    """Read rules and check them against the columns of the recommender's products."""
    from newshelf.serving.rule_masks import further_columns
    from newshelf.serving.rules import read_rules

    return read_rules(file, further_columns(recommender.live.base.table))


@contextmanager
def _served(workspace: Workspace) -> Iterator["RecommenderPredictor"]:
    """Load the archive that is served, or would be, with the products of now."""
    from newshelf.pipeline.serve import served_recommender
    from newshelf.serving.shelf_reader import ShelfReader

    with open_recommender(served_recommender(workspace, make_console())) as recommender:
        version = recommender.index.manifest.encoder_version
        shelf = ShelfReader(workspace.shelf / version, recommender.live)
        shelf.read()
        recommender.live = shelf.live
        yield recommender


@contextmanager
def open_recommender(archive: Path) -> Iterator["RecommenderPredictor"]:
    """Load an archive of the recommender in this process."""
    from newshelf.rollout.versions import unpack
    from newshelf.serving.model_config import read_model_config
    from newshelf.serving.recommender_predictor import load_recommender_predictor
    from newshelf.serving.settings import ServingSettings

    with TemporaryDirectory() as folder:
        unpacked = unpack(archive, Path(folder) / "archive")
        settings = ServingSettings.from_model_config(read_model_config(unpacked))
        yield load_recommender_predictor(unpacked, settings=settings)
