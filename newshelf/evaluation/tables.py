"""The tables of a report, as words: shared by Markdown and HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.few_shot import FewShot
from newshelf.evaluation.funnel import Funnel, FunnelRow, Rate
from newshelf.evaluation.types import Interval, Metrics

__all__ = ["Cell", "Table", "few_shot_table", "funnel_table", "split_tables", "verdict"]

_SHOWN_CATEGORIES = 12
_Values = Callable[[Metrics], Mapping[int, float]]


@dataclass(frozen=True)
class Cell:
    """A figure, and its interval in small print."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """A heading, column names, and rows whose first cell is a name."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    model: int | None = None
    """Which row is the model's."""
    best: int | None = None
    """Which row is the best baseline's."""
    note: str = ""
    words: frozenset[int] = frozenset()
    """Columns that hold text, which begins at the left and may break; from 0."""


def split_tables(comparison: Comparison) -> list[Table]:
    """What was found; further cut-offs, where there are some; what the lists show."""
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


def few_shot_table(shots: FewShot) -> Table:
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
    return Table("Accuracy over shots", header, rows)


def funnel_table(found: Funnel) -> Table:
    """Events and rates, the whole shop first."""
    rows = [found.total, *found.rows[:_SHOWN_CATEGORIES]]
    left_out = len(found.rows) - _SHOWN_CATEGORIES
    said = [*found.missing]
    if left_out > 0:
        said.append(f"{left_out} smaller categories are left out.")
    header = ("category", "views", "clicks", "carts", "purchases", "CTR", "CVR")
    return Table("From view to purchase", header, [_funnel_row(row) for row in rows],
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
) -> Table:
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
    return Table(
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
