"""The evaluation of one catalogue: what it holds, and its files.

The tables of a report, as words: shared by Markdown and HTML.

The learning curves of a checkpoint's ``training.json``.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from newshelf.evaluation.classification import FewShot
from newshelf.evaluation.compare_reports import CASES_FILE, FORMAT, keep_cases
from newshelf.evaluation.evaluate import Comparison
from newshelf.evaluation.funnel import Funnel, FunnelRow, Rate
from newshelf.evaluation.types import Interval, Metrics
from newshelf.files import write_aside, write_json
from newshelf.report.page import Cell, Page, Picture, ReportTable, Section, to_html, to_markdown
from newshelf.report.plots import MUTED, Line, new_figure, save

_SHOWN_CATEGORIES = 12
_Values = Callable[[Metrics], Mapping[int, float]]


def split_tables(comparison: Comparison) -> list[ReportTable]:
    """Metrics at the first cut-off, at further ones, and of the lists."""
    first, *further = comparison.k
    figure = "{:.4f}".format
    share = "{:.1%}".format
    bits = "{:.2f}".format
    found: list[tuple[str, _Values]] = [
        ("Recall", lambda row: row.recall),
        ("NDCG", lambda row: row.ndcg),
        ("HitRate", lambda row: row.hit_rate),
    ]
    shown: list[tuple[str, _Values, Callable[[float], str]]] = [
        ("Coverage", lambda row: row.coverage, share),
        ("Gini", lambda row: row.gini, bits),
        ("Novelty", lambda row: row.novelty, bits),
        ("ARP", lambda row: row.popularity, share),
        ("Head", lambda row: row.head_share, share),
    ]
    table = partial(_table, comparison)
    tables = [
        table(
            f"First {first}",
            [(f"{name}@{first}", _at(values, first), figure) for name, values in found]
            + [("MRR", lambda row: row.mrr, figure)],
        )
    ]
    if further:
        columns = [
            (f"{name}@{k}", _at(values, k), figure) for k in further for name, values in found
        ]
        tables.append(table("Further cut-offs", columns))
    tables.append(
        table(
            "What the lists show",
            [(f"{name}@{first}", _at(values, first), words) for name, values, words in shown],
            note="Coverage: share of the ranked items in any list. Gini: 0 when all items are "
            "shown alike. Novelty: bits of surprise. ARP: average popularity of what is listed. "
            "Head: share of the list from the tenth of the items that is met most.",
        )
    )
    return tables


def verdict(comparison: Comparison) -> str:
    """The best baseline, and how the model stands to it."""
    first, best = comparison.k[0], comparison.best_baseline
    start = f"Best baseline: {best.ranker}, NDCG@{first} {best.ndcg[first]:.4f}."
    test = comparison.test()
    if comparison.model is None or test is None:
        return start
    if comparison.ratio is None:
        return f"{start} No baseline found anything, so the model has no ratio to it."
    interval = comparison.ratio_interval()
    if interval is None:
        range_words = f"only {test.groups} independent cases: no interval"
    else:
        range_words = f"95 % of resampled cases: {interval[0]:.2f} to {interval[1]:.2f}"
    return (
        f"{start} {comparison.model.ranker} reaches {comparison.ratio:.2f} times that "
        f"({range_words}; paired test: {test.verdict}, p {_p_words(test.p_value)})."
    )


def few_shot_table(shots: FewShot) -> ReportTable:
    """Accuracy and macro-F1 per number of shots, mean ± standard deviation over the draws."""
    names = list(shots.accuracy)
    header = ["shots", *(f"{what}, {name}" for name in names for what in ("accuracy", "macro-F1"))]
    rows = []
    for place, count in enumerate(shots.shots):
        row = [Cell(str(count))]
        for name in names:
            for values in (shots.accuracy[name][place], shots.macro_f1[name][place]):
                row.append(Cell(f"{values.mean():.1%}", f"± {100 * values.std():.1f}"))
        rows.append(row)
    return ReportTable("Accuracy over shots", header, rows)


def funnel_table(found: Funnel) -> ReportTable:
    """Events and rates, the whole shop first."""
    rows = [found.total, *found.rows[:_SHOWN_CATEGORIES]]
    left_out = len(found.rows) - _SHOWN_CATEGORIES
    said = [*found.missing]
    if left_out > 0:
        said.append(f"{left_out} smaller categories are left out.")
    header = ("category", "views", "clicks", "carts", "purchases", "CTR", "CVR")
    return ReportTable("From view to purchase", header, [_funnel_row(row) for row in rows],
                 note=" ".join(said))  # fmt: skip


def _funnel_row(row: FunnelRow) -> list[Cell]:
    counts = [f"{count:,}" for count in (row.views, row.clicks, row.carts, row.purchases)]
    return [Cell(row.name), *[Cell(count) for count in counts], _rate(row.ctr), _rate(row.cvr)]


def _rate(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell("–")
    return Cell(f"{rate.value:.2%}", f"{rate.interval[0]:.2%} – {rate.interval[1]:.2%}")


def _at(values: _Values, k: int) -> Callable[[Metrics], float]:
    return lambda row: values(row)[k]


def _table(
    comparison: Comparison,
    heading: str,
    columns: Sequence[tuple[str, Callable[[Metrics], float], Callable[[float], str]]],
    note: str = "",
) -> ReportTable:
    rows = [
        [
            Cell(row.ranker),
            *[
                Cell(words(value(row)), _range(row.intervals.get(name), words))
                for name, value, words in columns
            ],
        ]
        for row in comparison.rows
    ]
    return ReportTable(
        heading,
        ["ranker", *[name for name, _, _ in columns]],
        rows,
        model=len(rows) - 1 if comparison.model is not None else None,
        best=comparison.baselines.index(comparison.best_baseline),
        note=note,
    )


def _range(interval: Interval | None, words: Callable[[float], str]) -> str:
    return "" if interval is None else f"{words(interval[0])} – {words(interval[1])}"


def _p_words(value: float) -> str:
    return f"= {value:.4f}" if value >= 0.001 else "< 0.001"  # noqa: PLR2004


_LIBRARIES = ("numpy", "scipy", "pandas", "scikit-learn")
_BARS = Picture("ndcg.png", "NDCG per ranker and split, with 95 % intervals")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    shots: FewShot | None = None
    pictures: Sequence[Picture] = ()
    """Already drawn, in the report's folder."""
    notes: Sequence[str] = ()
    """What could not be shown, and why."""
    created: str = field(default_factory=_now)
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
            "few_shot": None if self.shots is None else _shots_json(self.shots),
            "notes": list(self.notes),
        }

    def page(self) -> Page:
        """Return the page of ``report.md`` and ``report.html``."""
        sections = [
            Section(
                comparison.split,
                comparison.description,
                tables=split_tables(comparison),
                verdict=verdict(comparison),
            )
            for comparison in self.comparisons
        ]
        if self.funnel is not None:
            sections.append(Section("Clicks and purchases", tables=[funnel_table(self.funnel)]))
        if self.shots is not None:
            said = (
                f"A linear probe on the labels of {len(self.shots.classes)} product types, "
                f"tested on {self.shots.tested} other products."
            )
            sections.append(Section("Few labels", said, tables=[few_shot_table(self.shots)]))
        if self.pictures or self.notes:
            said = " ".join(self.notes)
            sections.append(Section("What the model has learned", said, pictures=self.pictures))
        libraries = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        return Page(
            title=f"Evaluation of {self.catalog}",
            facts=(
                self.created,
                f"model {self.model_version or 'none'}",
                f"{self.items} items",
                f"seed {self.seed}",
                libraries,
            ),
            pictures=(_BARS,),
            sections=sections,
        )


def write_report(report: EvaluationReport, folder: Path) -> None:
    """Write ``report.json``, ``.md`` and ``.html``, ``cases.npz`` and ``ndcg.png``.

    Each is written aside and renamed. The report's pictures must be in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(folder / _BARS.file) as aside:
        draw_bars(report.comparisons, aside, title=report.catalog)
    keep_cases([row for c in report.comparisons for row in c.rows], folder / CASES_FILE)
    page = report.page()
    for name, text in (("report.md", to_markdown(page)), ("report.html", to_html(page, folder))):
        with write_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    write_json(folder / "report.json", report.to_json())


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
        "rankers": [_ranker_json(row) for row in comparison.rows],
    }


def _ranker_json(row: Metrics) -> dict[str, Any]:
    by_cutoff = ("recall", "ndcg", "hit_rate", "coverage", "novelty", "popularity", "head_share",
                 "gini")  # fmt: skip
    return {
        "name": row.ranker,
        "mrr": row.mrr,
        **{name: {str(k): v for k, v in getattr(row, name).items()} for name in by_cutoff},
        "intervals_95": {name: list(ends) for name, ends in row.intervals.items()},
    }


def _shots_json(shots: FewShot) -> dict[str, Any]:
    return {
        "shots": list(shots.shots),
        "classes": list(shots.classes),
        "tested": shots.tested,
        "accuracy": {name: values.tolist() for name, values in shots.accuracy.items()},
        "macro_f1": {name: values.tolist() for name, values in shots.macro_f1.items()},
        "confusion": {name: last.confusion.tolist() for name, last in shots.last.items()},
    }


_SERIES = ("loss", "validation")
_SHORTEST = 2


def learning_curves(training: Mapping[str, Any]) -> dict[str, dict[str, Line]]:
    """Panels for :func:`newshelf.report.plots.draw_lines`: training loop → name → line.

    Every list of numbers, or of records of numbers, whose key speaks of a loss or a
    validation is a curve over epochs, however deep it lies: what a training writes down
    differs with its methods. Curves of one epoch are left out.
    """
    panels: dict[str, dict[str, Line]] = {}
    for title, name, values in _found(training, ()):
        epochs = [float(epoch) for epoch in range(1, len(values) + 1)]
        panels.setdefault(title, {})[name] = Line(epochs, values)
    return panels


def _found(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    """(title, name, values) of each curve below ``value``."""
    if isinstance(value, Mapping):
        named = str(value["name"]) if isinstance(value.get("name"), str) else None
        for key, inner in value.items():
            yield from _found(inner, (*path[:-1], named, key) if named else (*path, str(key)))
    elif isinstance(value, list) and path and any(word in path[-1] for word in _SERIES):
        yield from _series(value, path)
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _found(inner, (*path[:-1], f"{path[-1]} {number}") if path else path)


def _series(values: list[Any], path: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    title, name = _names(path)
    if len(values) < _SHORTEST:
        return
    if all(_is_number(value) for value in values):
        yield title, name, [float(value) for value in values]
    elif all(isinstance(value, Mapping) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            column = [value.get(key) for value in values]
            if all(_is_number(value) for value in column):
                yield title, str(key), [float(value) for value in column]


def _names(path: Sequence[str]) -> tuple[str, str]:
    """``("scorer_losses",)`` → scorer, loss; ``("finetune 1", "losses")`` → finetune 1, loss."""
    *outer, last = path
    word = "validation" if "validation" in last else "loss"
    start = last.replace("losses", "").replace(word, "").strip("_ ").replace("_", " ")
    title = " ".join([part.replace("_", " ") for part in outer] + ([start] if start else []))
    return title or "training", word


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_BEST_COLOUR, _MODEL_COLOUR = "#5b7fa6", "#d9622b"


def draw_bars(comparisons: Sequence[Comparison], path: Path, title: str) -> None:
    """Write a PNG with one panel per split and one bar per ranker, with 95 % intervals.

    The first cut-off is drawn. Grey are the baselines, blue the best of them, orange the
    model. Each panel has its own scale: splits ask different questions.

    Raises:
        ValueError: without a comparison.
    """
    if not comparisons:
        raise ValueError("there is no split to draw")
    rows = max(len(comparison.rows) for comparison in comparisons)
    figure = new_figure(3.0 + 3.2 * len(comparisons), 1.4 + 0.38 * rows)
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for place, (panel, comparison) in enumerate(zip(panels, comparisons, strict=True)):
        k = comparison.k[0]
        values = np.array([row.ndcg[k] for row in comparison.rows])
        ends = np.array(
            [row.intervals.get(f"NDCG@{k}", (row.ndcg[k],) * 2) for row in comparison.rows]
        )
        bars = panel.barh(
            _bar_names(comparison),
            values,
            # A percentile interval need not hold the mean; a whisker has no negative length.
            xerr=np.maximum([values - ends[:, 0], ends[:, 1] - values], 0),
            error_kw={"ecolor": "#444444", "elinewidth": 1, "capsize": 2},
            color=[_bar_colour(comparison, number) for number in range(len(values))],
        )
        panel.bar_label(bars, fmt="%.3f", padding=4, fontsize=9)
        panel.invert_yaxis()
        if place and _bar_names(comparison) == _bar_names(comparisons[0]):
            panel.tick_params(labelleft=False)
        panel.set_xlim(0, max(float(ends.max()) * 1.22, 1e-3))
        panel.set_title(f"{comparison.split} ({comparison.cases} cases)", fontsize=11)
        panel.set_xlabel(f"NDCG@{k}")
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=13)
    save(figure, path)


def _bar_colour(comparison: Comparison, number: int) -> str:
    row = comparison.rows[number]
    if row is comparison.model:
        return _MODEL_COLOUR
    return _BEST_COLOUR if row is comparison.best_baseline else MUTED


def _bar_names(comparison: Comparison) -> list[str]:
    return [row.ranker for row in comparison.rows]
