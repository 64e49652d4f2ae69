"""Report of an evaluation: JSON, Markdown, HTML and tables in the terminal; paired comparison."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from rich.console import Console

from newshelf.errors import SetupError
from newshelf.evaluation.evaluate import Comparison
from newshelf.evaluation.funnel import Funnel, FunnelRow, Rate
from newshelf.evaluation.kinds import KindResult
from newshelf.evaluation.metrics import FewShot, SegmentResult
from newshelf.evaluation.plots import draw_comparisons
from newshelf.evaluation.significance import PairedTest, paired_test
from newshelf.evaluation.types import Interval, Metrics
from newshelf.files import read_json, write_aside, write_json
from newshelf.report.page import (
    Cell,
    Page,
    Picture,
    ReportTable,
    Section,
    print_table,
    save_page,
)

_MAX_CATEGORIES = 12
_SMALLEST_P = 0.001
_LIBRARIES = ("numpy", "scipy", "pandas", "scikit-learn")
_NDCG = Picture("ndcg.png", "NDCG per ranker and split, with 95 % intervals")
_Figure = tuple[str, str]
_ACCURACY: dict[str, _Figure] = {
    "Recall": ("recall", ".4f"),
    "NDCG": ("ndcg", ".4f"),
    "HitRate": ("hit_rate", ".4f"),
}
"""Metric → its name in ``report.json``, and format."""
_LISTS: dict[str, _Figure] = {
    "Coverage": ("coverage", ".1%"),
    "Gini": ("gini", ".2f"),
    "Novelty": ("novelty", ".2f"),
    "ARP": ("popularity", ".1%"),
    "Head": ("head_share", ".1%"),
}


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **libraries}


@dataclass(frozen=True)
class EvaluationReport:
    """All splits of one catalogue, and further results of the model."""

    catalog: str
    items: int
    seed: int
    comparisons: Sequence[Comparison]
    model_version: str | None = None
    funnel: Funnel | None = None
    kinds: Sequence[KindResult] = ()
    segments: Sequence[SegmentResult] = ()
    """For the model card."""
    shots: FewShot | None = None
    pictures: Sequence[Picture] = ()
    """Already drawn, in the report's folder."""
    notes: Sequence[str] = ()
    """Results that are missing, and why."""
    created: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}")
    """UTC, ISO 8601."""
    versions: dict[str, str] = field(default_factory=_versions)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        return {
            "format": FORMAT,
            "catalog": self.catalog,
            "items": self.items,
            "seed": self.seed,
            "model_version": self.model_version,
            "created": self.created,
            "versions": self.versions,
            "splits": [_split_json(comparison) for comparison in self.comparisons],
            "funnel": None if self.funnel is None else asdict(self.funnel),
            "kinds": [asdict(result) for result in self.kinds],
            "segments": [asdict(result) for result in self.segments],
            "few_shot": None if self.shots is None else _shots_json(self.shots),
            "notes": list(self.notes),
        }

    def page(self) -> Page:
        """Return the page of ``report.md`` and ``report.html``."""
        sections = [
            Section(
                comparison.split,
                comparison.description,
                tables=_split_tables(comparison),
                verdict=verdict(comparison),
            )
            for comparison in self.comparisons
        ]
        if self.kinds:
            text = "Each kind of recommendations and its best baseline, by NDCG@10."
            sections.append(Section("Kinds", text, tables=[_kinds_table(self.kinds)]))
        if self.funnel is not None:
            sections.append(Section("Clicks and purchases", tables=[_funnel_table(self.funnel)]))
        if self.shots is not None:
            text = (
                f"A linear probe on the labels of {len(self.shots.classes)} product types, "
                f"tested on {self.shots.tested} other products."
            )
            sections.append(Section("Few labels", text, tables=[_few_shot_table(self.shots)]))
        if self.pictures or self.notes:
            text = " ".join(self.notes)
            sections.append(Section("What the model has learned", text, pictures=self.pictures))
        libraries = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        facts = [
            self.created,
            f"model {self.model_version or 'none'}",
            f"{self.items} items",
            f"seed {self.seed}",
            libraries,
        ]
        return Page(f"Evaluation of {self.catalog}", facts, [_NDCG], sections)


def write_report(report: EvaluationReport, folder: Path) -> None:
    """Write ``report.json``, ``.md``, ``.html``, ``cases.npz`` and ``ndcg.png`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(folder / _NDCG.file) as aside:
        draw_comparisons(report.comparisons, aside, title=report.catalog)
    write_cases([row for c in report.comparisons for row in c.rows], folder / CASES_FILE)
    page = report.page()
    save_page(page, folder / "report.md")
    save_page(page, folder / "report.html", folder)
    write_json(folder / "report.json", report.to_json())


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print a ``report.json``: per split a table at the first cut-off, description and verdict."""
    for split in report["splits"]:
        print_table(_printed_table(split), console)
        console.print(split["description"], style="dim", markup=False)
        console.print(split["verdict"], highlight=False, markup=False)
        console.print()


def _printed_table(split: Mapping[str, Any]) -> ReportTable:
    k = str(split["k"][0])
    names = [row["name"] for row in split["rankers"]]
    return ReportTable(
        f"{split['name']}: {split['cases']} cases, {split['items_ranked']} items ranked",
        ["ranker", *(f"{name}@{k}" for name in _ACCURACY), "MRR", f"coverage@{k}"],
        [
            [
                row["name"],
                *(f"{row[name][k]:{form}}" for name, form in _ACCURACY.values()),
                f"{row['mrr']:.4f}",
                f"{row['coverage'][k]:.1%}",
            ]
            for row in split["rankers"]
        ],
        main_row=names.index(split["model"]) if split["model"] else None,
        reference_row=names.index(split["best_baseline"]),
    )


def verdict(comparison: Comparison) -> str:
    """Return the best baseline, and the model's ratio to it with interval and p-value."""
    first, best = comparison.k[0], comparison.best_baseline
    start = f"Best baseline: {best.ranker}, NDCG@{first} {best.values[f'NDCG@{first}']:.4f}."
    test = comparison.test()
    if comparison.model is None or test is None:
        return start
    if comparison.ratio is None:
        return f"{start} No baseline found anything, so the model has no ratio to it."
    interval = comparison.ratio_interval()
    if interval is None:
        spread = f"only {test.groups} independent cases: no interval"
    else:
        spread = f"95 % of resampled cases: {interval[0]:.2f} to {interval[1]:.2f}"
    p_value = f"= {test.p_value:.4f}" if test.p_value >= _SMALLEST_P else f"< {_SMALLEST_P}"
    return (
        f"{start} {comparison.model.ranker} reaches {comparison.ratio:.2f} times that "
        f"({spread}; paired test: {test.verdict}, p {p_value})."
    )


def _split_tables(comparison: Comparison) -> list[ReportTable]:
    first, *further = comparison.k
    tables = [_table(comparison, f"First {first}", _ACCURACY, [first], mrr=True)]
    if further:
        tables.append(_table(comparison, "Further cut-offs", _ACCURACY, further))
    note = (
        "Coverage: share of the ranked items in any list. Gini: 0 when all items are "
        "shown alike. Novelty: bits of surprise. ARP: average popularity of what is listed. "
        "Head: share of the list from the most popular tenth of the items."
    )
    return [*tables, _table(comparison, "The lists", _LISTS, [first], note=note)]


def _table(
    comparison: Comparison,
    heading: str,
    metrics: Mapping[str, _Figure],
    cutoffs: Sequence[int],
    *,
    mrr: bool = False,
    note: str = "",
) -> ReportTable:
    columns = {f"{name}@{k}": form for k in cutoffs for name, (_, form) in metrics.items()}
    columns |= {"MRR": ".4f"} if mrr else {}
    return ReportTable(
        heading,
        ["ranker", *columns],
        [
            [
                row.ranker,
                *(
                    _cell(row.values[name], row.intervals.get(name), form)
                    for name, form in columns.items()
                ),
            ]
            for row in comparison.rows
        ],
        main_row=len(comparison.baselines) if comparison.model is not None else None,
        reference_row=comparison.baselines.index(comparison.best_baseline),
        note=note,
    )


def _cell(value: float, interval: Interval | None, form: str) -> Cell:
    ends = "" if interval is None else f"{interval[0]:{form}} – {interval[1]:{form}}"
    return Cell(f"{value:{form}}", ends)


def _kinds_table(kinds: Sequence[KindResult]) -> ReportTable:
    rows: list[list[Cell | str]] = [
        [
            one.kind,
            one.task,
            str(one.cases),
            _cell(one.ndcg, one.interval, ".4f"),
            one.baseline,
            _cell(one.baseline_ndcg, one.baseline_interval, ".4f"),
            one.verdict,
        ]
        for one in kinds
    ]
    header = ("kind", "asked", "cases", "NDCG@10", "baseline", "its NDCG@10", "paired test")
    return ReportTable("Kinds of recommendations", header, rows, text_columns=(1, 4, 6))


def _few_shot_table(shots: FewShot) -> ReportTable:
    """Mean ± standard deviation over the draws, per number of shots."""
    measures = ("accuracy", "macro-F1")
    header = ["shots", *(f"{one}, {name}" for name in shots.accuracy for one in measures)]
    rows: list[list[Cell | str]] = [
        [
            str(count),
            *(
                Cell(f"{values[place].mean():.1%}", f"± {100 * values[place].std():.1f}")
                for name in shots.accuracy
                for values in (shots.accuracy[name], shots.macro_f1[name])
            ),
        ]
        for place, count in enumerate(shots.shots)
    ]
    return ReportTable("Accuracy over shots", header, rows)


def _funnel_table(funnel: Funnel) -> ReportTable:
    notes = [*funnel.missing]
    left_out = len(funnel.rows) - _MAX_CATEGORIES
    if left_out > 0:
        notes.append(f"{left_out} smaller categories are left out.")
    return ReportTable(
        "From view to purchase",
        ("category", "views", "clicks", "carts", "purchases", "CTR", "CVR"),
        [_funnel_row(row) for row in (funnel.total, *funnel.rows[:_MAX_CATEGORIES])],
        note=" ".join(notes),
    )


def _funnel_row(row: FunnelRow) -> list[Cell | str]:
    counts = [f"{count:,}" for count in (row.views, row.clicks, row.carts, row.purchases)]
    return [row.name, *counts, _rate(row.ctr), _rate(row.cvr)]


def _rate(rate: Rate | None) -> Cell | str:
    return "–" if rate is None else _cell(rate.value, rate.interval, ".2%")


def _split_json(comparison: Comparison) -> dict[str, Any]:
    interval = comparison.ratio_interval()
    test = comparison.test()
    return {
        "name": comparison.split,
        "description": comparison.description,
        "questions": comparison.questions,
        "items_ranked": comparison.items,
        "cases": comparison.cases,
        "k": list(comparison.k),
        "best_baseline": comparison.best_baseline.ranker,
        "model": comparison.model.ranker if comparison.model else None,
        "ratio": comparison.ratio,
        "verdict": verdict(comparison),
        "ratio_interval_95": list(interval) if interval else None,
        "p_value": test.p_value if test else None,
        "rankers": [_ranker_json(row, comparison.k) for row in comparison.rows],
    }


def _ranker_json(row: Metrics, cutoffs: Sequence[int]) -> dict[str, Any]:
    return {
        "name": row.ranker,
        "mrr": row.values["MRR"],
        **{
            name: {str(k): row.values[f"{metric}@{k}"] for k in cutoffs}
            for metric, (name, _) in (_ACCURACY | _LISTS).items()
        },
        "intervals_95": {name: list(ends) for name, ends in row.intervals.items()},
    }


def _shots_json(shots: FewShot) -> dict[str, Any]:
    return {
        "shots": list(shots.shots),
        "classes": list(shots.classes),
        "tested": shots.tested,
        "accuracy": {name: values.tolist() for name, values in shots.accuracy.items()},
        "macro_f1": {name: values.tolist() for name, values in shots.macro_f1.items()},
        "confusion": {name: counts.tolist() for name, counts in shots.confusion.items()},
    }


CASES_FILE = "cases.npz"
FORMAT = 2
"""Of ``report.json`` and ``cases.npz``, which belong together."""


def write_cases(rows: Sequence[Metrics], path: Path) -> None:
    """Write all metrics per case, atomically: ``split/groups`` and ``split/ranker/metric``."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for row in rows:
        arrays[f"{row.split}/groups"] = row.groups
        for metric, values in row.per_case.items():
            arrays[f"{row.split}/{row.ranker}/{metric}"] = values
    with write_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


@dataclass(frozen=True)
class PairedSplit:
    """Tests of the models of two reports on one split."""

    split: str
    ours: str
    """Name of the ranker and version of the model."""
    theirs: str
    tests: Mapping[str, PairedTest]
    """By metric, at the first cut-off."""


def compare_reports(ours: Path, theirs: Path) -> list[PairedSplit]:
    """Test the models of two reports (folders or their JSON) on all splits with the same cases."""
    mine, other = _read(ours), _read(theirs)
    found = []
    by_name = {split["name"]: split for split in other[0]["splits"]}
    for split in mine[0]["splits"]:
        match = by_name.get(split["name"])
        if match is None or match["questions"] != split["questions"]:
            continue
        if split["model"] is None or match["model"] is None:
            raise SetupError(f"split {split['name']}: one of the reports was made without a model")
        found.append(_paired(mine, other, split, match))
    if not found:
        raise SetupError(
            f"{ours} and {theirs} have no split with the same cases: two models can only be "
            "paired on the same catalogue, seed and [evaluation] settings"
        )
    return found


_Report = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
"""The report, and the arrays of ``write_cases``."""


def _read(given: Path) -> _Report:
    folder = given.parent if given.name == "report.json" else given
    try:
        report = read_json(folder / "report.json")
        with np.load(folder / CASES_FILE, allow_pickle=False) as kept:
            cases = dict(kept)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise SetupError(
            f"{folder} holds no report to compare with ({error}): it needs report.json and "
            f"{CASES_FILE}, as ./run evaluate leaves them"
        ) from error
    if report.get("format") != FORMAT:
        raise SetupError(f"{folder}/report.json is of another format: run ./run evaluate again")
    return report, cases


def _paired(
    mine: _Report, other: _Report, split: Mapping[str, Any], match: Mapping[str, Any]
) -> PairedSplit:
    name, k = split["name"], split["k"][0]
    (ours, cases), (theirs, other_cases) = mine, other
    names = {
        metric: (f"{name}/{split['model']}/{metric}", f"{name}/{match['model']}/{metric}")
        for metric in (f"NDCG@{k}", f"Recall@{k}", f"HitRate@{k}", "MRR")
    }
    return PairedSplit(
        split=name,
        ours=f"{split['model']} {ours['model_version']}",
        theirs=f"{match['model']} {theirs['model_version']}",
        tests={
            metric: paired_test(cases[first], other_cases[second], cases[f"{name}/groups"])
            for metric, (first, second) in names.items()
            if first in cases and second in other_cases
        },
    )


def print_pairs(pairs: Sequence[PairedSplit], console: Console) -> None:
    """Print a table per split: both models, their difference with its interval, p and verdict."""
    header = ("metric", "this", "other", "difference", "95 %", "p", "this is")
    for pair in pairs:
        rows = [
            (
                metric,
                f"{test.first:.4f}",
                f"{test.second:.4f}",
                f"{test.difference:+.4f}",
                "–" if test.interval is None else "{:+.4f} to {:+.4f}".format(*test.interval),
                f"{test.p_value:.4f}",
                test.verdict,
            )
            for metric, test in pair.tests.items()
        ]
        print_table(ReportTable(pair.split, header, rows, text_columns=[6]), console)
        groups = next(iter(pair.tests.values())).groups
        console.print(
            f"this: {pair.ours}; other: {pair.theirs}; {groups} independent groups of cases",
            style="dim",
            markup=False,
        )
        console.print()
