"""Drift: changed products against those that the served version was trained on; answers by period.

A measure triggers if it is at its limit, which does not depend on the size of the samples, and
chance is an unlikely cause. Without enough data it is unknown, which triggers nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from scipy.spatial.distance import pdist, squareform
from scipy.special import chdtrc

from newshelf.config import DriftSettings, Settings
from newshelf.evaluation.types import BoolArray, FloatArray, IntArray
from newshelf.files import read_json, write_json
from newshelf.nn.inputs import Tokenizer, price_edges
from newshelf.nn.spec import read_spec
from newshelf.pipeline.serve import served_recommender
from newshelf.pipeline.workspace import Workspace
from newshelf.report.page import Page, ReportTable, Section, save_page
from newshelf.rollout.versions import ARCHIVES, unpack
from newshelf.serving.index import VECTORS, map_tensors, read_columns
from newshelf.serving.settings import INDEX, MODEL_CARD, TOKENIZER
from newshelf.store.items import EncodedItem, ItemRepository, StoredItem
from newshelf.store.store import EventStore

Floats = npt.NDArray[np.float64]
_PERMUTATIONS, _AT_ONCE = 2000, 250
_SMOOTHING = 0.5
"""Added to each count, so that an empty bin has a finite logarithm."""


class Shift(NamedTuple):
    """Distance between two samples."""

    size: float
    p_value: float


def mmd(first: FloatArray, second: FloatArray, seed: int = 0, most: int = 500) -> Shift:
    """Return the unbiased squared maximum mean discrepancy, with a permutation test.

    ::

        MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 · mean_{i,j} k(x_i, y_j)
        k(a, b) = exp(-|a - b|² / median |a - b|²)

    ``first`` (N, D) and ``second`` (M, D) have two rows or more, of which ``most`` are drawn.
    (Gretton et al. 2012: A kernel two-sample test.)
    """
    generator = np.random.default_rng(seed)
    first, second = (one[generator.permutation(len(one))[:most]] for one in (first, second))
    apart = pdist(np.concatenate([first, second]).astype(np.float64), "sqeuclidean")
    kernel = squareform(np.exp(-apart / max(float(np.median(apart)), 1e-12)))
    in_first = np.arange(len(kernel))[:, None] < len(first)
    size = float(_mmd(kernel, in_first)[0])
    as_far = 0
    for _ in range(_PERMUTATIONS // _AT_ONCE):
        drawn = generator.permuted(np.tile(in_first, _AT_ONCE), axis=0)
        as_far += int((_mmd(kernel, drawn) >= size - 1e-12).sum())
    return Shift(size, (1 + as_far) / (1 + _PERMUTATIONS))


def _mmd(kernel: Floats, in_first: BoolArray) -> Floats:
    """Return (P,) MMD² of P divisions (N + M, P) of the rows of a kernel without diagonal."""
    one = in_first.astype(np.float64)
    n = one.sum(axis=0)
    m = len(one) - n
    from_one = kernel @ one
    within = (one * from_one).sum(axis=0)
    across = from_one.sum(axis=0) - within
    rest = kernel.sum() - within - 2 * across
    found: Floats = within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)
    return found


def psi(before: IntArray, now: IntArray, draws: tuple[int, int] | None = None) -> Shift:
    """Return the population stability index of two histograms (B,), and its p-value.

    ::

        PSI = Σ_b (q_b - p_b) · ln(q_b / p_b),   PSI / (1/N + 1/M) ~ χ²(B - 1) without a shift

    ``draws`` are the independent draws behind them, N and M; None takes their counts.
    (Yurdakul 2018: Statistical properties of the population stability index.)
    """
    kept = before + now > 0
    p, q = ((one[kept] + _SMOOTHING) / (one + _SMOOTHING)[kept].sum() for one in (before, now))
    size = float(((q - p) * np.log(q / p)).sum())
    n, m = draws or (before.sum(), now.sum())
    # One bin holds everything: nothing can shift.
    p_value = chdtrc(len(p) - 1, size / (1 / n + 1 / m)) if len(p) > 1 else 1.0
    return Shift(size, float(p_value))


def calibration_error(
    before: tuple[Floats, BoolArray], now: tuple[Floats, BoolArray], bins: int = 5
) -> Shift:
    """Return the expected calibration error relative to the mean rate, and its p-value.

    Both are scores and clicks (shown,). A score predicts the click rate that it had before, by
    bins of equal count; the error is measured now::

        ECE = Σ_b n_b / n · |clicks_b / n_b - rate_b|,   size = ECE / mean rate before
    """
    edges = np.unique(np.quantile(before[0], np.linspace(0, 1, bins + 1)[1:-1]))
    counts = np.array([*_rates(edges, *before), *_rates(edges, *now)])
    old_shown, old_clicks, shown, clicks = counts[:, (counts[[0, 2]] > 0).all(axis=0)]
    gap = clicks / shown - old_clicks / old_shown
    pooled = (clicks + old_clicks) / (shown + old_shown)
    variance = np.maximum(pooled * (1 - pooled) * (1 / shown + 1 / old_shown), 1e-12)
    error = float(shown @ np.abs(gap) / shown.sum())
    p_value = float(chdtrc(len(gap), (gap**2 / variance).sum()))
    return Shift(error / float(old_clicks.sum() / old_shown.sum()), p_value)


def _rates(edges: Floats, scores: Floats, clicked: BoolArray) -> tuple[IntArray, IntArray]:
    at, bins = np.searchsorted(edges, scores, side="right"), len(edges) + 1
    return np.bincount(at, minlength=bins), np.bincount(at[clicked], minlength=bins)


_MOST_CHANGES, _MOST_ANSWERS = 20_000, 50_000
_COLUMNS = ("product_type", "brand", "color", "material", "price")
_NAMES, _LEAST_SHARE = 10, 0.02
"""Most frequent values that have a bin of their own, and their least share."""
_LEAST_CLICKS = 100
_Compared = tuple[Shift, str, str]
"""A shift, and in words what was compared before and now."""
_Changed = Sequence[tuple[StoredItem, EncodedItem | None]]


@dataclass(frozen=True)
class Measure:
    """One measure of drift."""

    name: str
    limit: float
    size: float | None = None
    """None if it is unknown."""
    p_value: float = 1.0
    """Probability of such a size without drift."""
    before: str = ""
    now: str = ""
    reason: str = ""
    """Why it is unknown, and how much data is needed."""


@dataclass(frozen=True)
class DriftReport:
    """All measures of one period."""

    catalog: str
    version: str
    """Of the recommender that is served by default."""
    since: datetime
    until: datetime
    """Answers since then are compared with those of an equally long period before."""
    false_alarms: float
    """Probability of any trigger without drift, which the known measures share."""
    measures: tuple[Measure, ...]

    @property
    def known(self) -> int:
        """Return the number of measures that had enough data."""
        return sum(one.size is not None for one in self.measures)

    @property
    def triggers(self) -> tuple[str, ...]:
        """Return the names of the measures that have drifted."""
        large = [one for one in self.measures if one.size is not None and one.size >= one.limit]
        return tuple(one.name for one in large if one.p_value < self.false_alarms / self.known)

    @property
    def verdict(self) -> str:
        """Return what was found, in a sentence."""
        if not self.known:
            return "Unknown: no measure has enough data."
        found = f"Drift: {', '.join(self.triggers)}." if self.triggers else "No drift."
        return f"{found} {self.known} of {len(self.measures)} measures had enough data."

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        times = {name: getattr(self, name).isoformat() for name in ("since", "until")}
        return {**asdict(self), **times, "triggers": self.triggers, "verdict": self.verdict}

    def table(self) -> ReportTable:
        """Return a row per measure, for terminal and page."""
        rows = [
            (one.name, "", "", "", f"{one.limit:g}", "", f"unknown: {one.reason}")
            if one.size is None
            else (
                *(one.name, one.before, one.now, f"{one.size:.3f}", f"{one.limit:g}"),
                f"{one.p_value:.2g}",
                "drift" if one.name in self.triggers else "–",
            )
            for one in self.measures
        ]
        header = ("measure", "before", "now", "size", "limit", "p", "")
        return ReportTable("", header, rows, text_columns=(1, 2, 6))


def write_drift(report: DriftReport, folder: Path) -> None:
    """Write ``report.html``, and ``report.json``, which the gateway reads."""
    text = "Changed products compared with trained ones; answers and clicks with those before."
    section = Section("Measures", text, tables=[report.table()], verdict=report.verdict)
    period = f"{report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} UTC"
    page = Page(f"Drift of {report.catalog}", [f"version {report.version}", period], [], [section])
    save_page(page, folder / "report.html", folder)
    write_json(folder / "report.json", report.to_json())


def drift_report(
    workspace: Workspace, settings: Settings, store: EventStore, *, now: datetime | None = None
) -> DriftReport:
    """Measure the drift of the last period.

    Raises:
        SetupError: there is no archive of the served version, or a damaged one.
    """
    archive = served_recommender(workspace, Console(quiet=True))
    version, drift, until = archive.stem.partition("-")[2], settings.drift, now or datetime.now(UTC)
    folder = unpack(archive, workspace.shelf / ARCHIVES / version)
    trained = read_columns(folder / INDEX)
    since = until - timedelta(days=drift.period_days)
    changed = _changed(store.items, version, since)
    shown = _read_shown(store, version, {*trained["id"]}, since, since - (until - since))
    measures = *product_measures(folder, trained, changed, drift), *answer_measures(shown, drift)
    name = workspace.catalog.name
    return DriftReport(name, version, since, until, drift.false_alarms, measures)


def _changed(items: ItemRepository, version: str, since: datetime) -> _Changed:
    """Return the products that were added or changed, the last 20,000 at most."""
    after = max(items.seq_before(since), items.last_seq() - _MOST_CHANGES)
    found: list[tuple[StoredItem, EncodedItem | None]] = []
    while page := items.encoded(version, after):
        found += [(item, vectors) for item, vectors in page if not item.deleted]
        after = page[-1][0].seq
    return found


def _measure(name: str, limit: float, lacks: str, compare: Callable[[], _Compared]) -> Measure:
    if lacks:
        return Measure(name, limit, reason=lacks)
    (size, p_value), before, now = compare()
    return Measure(name, limit, size, p_value, before, now)


def _too_few(least: int, *counts: tuple[int, str]) -> str:
    """Return in words which counts are below the least one; empty if none is."""
    few = [f"{count:,} {what}" for count, what in counts if count < least]
    return f"{' and '.join(few)}; at least {least:,} are needed" if few else ""


def product_measures(
    folder: Path, trained: dict[str, list[Any]], changed: _Changed, settings: DriftSettings
) -> Iterator[Measure]:
    """Compare changed products with those of a version.

    ``folder`` is its unpacked archive, ``trained`` are the columns of its index.
    """
    old, least = map_tensors(folder / INDEX / VECTORS)["embeddings"], settings.items
    new = [one.embedding for _, one in changed if one is not None and one.embedding is not None]
    words = f"{len(old):,} products", f"{len(new):,} products"
    lacks = _too_few(least, (len(old), "trained products"), (len(new), "changed ones with vectors"))
    yield _measure(
        "embeddings", settings.embeddings, lacks, lambda: (mmd(old, np.stack(new)), *words)
    )
    lacks = _too_few(least, (len(changed), "changed products"))
    edges = np.array(price_edges([one for one in trained["price"] if one is not None], _NAMES))
    for name in _COLUMNS:
        before = trained[name]
        now = [getattr(item.columns, name) for item, _ in changed]
        if name == "price":
            before, now = ([_price_bin(cell, edges) for cell in cells] for cells in (before, now))
        if any(before) or any(now):
            yield _measure(name, settings.psi, lacks, partial(compare_values, before, now))
    card, tower = folder / MODEL_CARD, read_spec(folder).encoder.text
    data = read_json(card)["data"] if card.exists() else Counter[str]()
    lacks = lacks or ("" if data else "the archive has no model card: archive again")
    missing = sum(item.picture is None or bool(one and one.problem) for item, one in changed)
    old_counts, counts = (data["without_picture"], data["items"]), (missing, len(changed))
    yield _measure("no_picture", settings.psi, lacks, partial(_compare_faults, old_counts, counts))
    texts = [text for item, _ in changed if (text := item.columns.text())]
    if tower is not None and texts:
        reader = Tokenizer(folder / TOKENIZER, tower.max_tokens, tower.pad_token_id)
        unread = sum(not row for row in reader.tokens(texts))
        old_counts, counts = (data["unreadable_texts"], data["texts"]), (unread, len(texts))
        compare = partial(_compare_faults, old_counts, counts)
        yield _measure("unreadable_text", settings.psi, lacks, compare)


def _price_bin(price: float | None, edges: "np.ndarray[Any, Any]") -> str | None:
    if price is None:
        return None
    at = int(np.searchsorted(edges, price, side="right"))
    return f"from {edges[at - 1]:g}" if at else "lowest"


def compare_values(
    before: Sequence[Any], now: Sequence[Any], draws: tuple[int, int] | None = None
) -> _Compared:
    """Compare values by the most frequent ones; rare ones share a bin. ``draws`` as in ``psi``."""
    # Of both: bins that depend on which is which would find shifts where there are none.
    common = Counter(one for one in (*before, *now) if one is not None).most_common(_NAMES)
    least = _LEAST_SHARE * (len(before) + len(now))
    labels = [name for name, count in common if count >= least]
    place = {name: at for at, name in enumerate(labels)} | {None: len(labels) + 1}
    old, new = (
        np.bincount([place.get(one, len(labels)) for one in values], minlength=len(labels) + 2)
        for values in (before, now)
    )
    first, second = old / old.sum(), new / new.sum()
    most = int(np.abs(second - first).argmax())
    label = [*labels, "others", "none"][most]
    words = f"{label}: {first[most]:.1%}", f"{label}: {second[most]:.1%}"
    return psi(old, new, draws), *words


def _compare_faults(
    before: tuple[int, int], now: tuple[int, int], draws: tuple[int, int] | None = None
) -> _Compared:
    """Compare faults among a number of things; fewer faults are no shift."""
    old, new = (np.array([faults, total - faults]) for faults, total in (before, now))
    first, second = (float(one[0] / one.sum()) for one in (old, new))
    shift = psi(old, new, draws) if second > first else Shift(0.0, 1.0)
    return shift, f"{first:.1%}", f"{second:.1%}"


def _read_shown(
    store: EventStore, version: str, trained: set[Any], since: datetime, start: datetime
) -> pd.DataFrame:
    """Return a row per product that was shown from ``start`` on, or in a sample of the answers."""
    clicks = {
        (one.request_id, one.item_id)
        for one in store.feedback(since=start)
        if one.event_type == "click"
    }
    every = 1 + store.count_answers(start) // _MOST_ANSWERS
    rows = [
        (
            answer.unit,
            answer.at >= since,
            answer.fallback,
            item.item_id,
            item.item_id not in trained,
            item.score
            if (answer.model_version, answer.kind, item.source) == (version, None, "model")
            else np.nan,
            (answer.request_id, item.item_id) in clicks,
        )
        for answer in store.exposures(since=start, every=every)
        for item in answer.items
    ]
    names = ["unit", "now", "fallback", "item", "new", "score", "clicked"]
    flags = dict.fromkeys(("now", "fallback", "new", "clicked"), bool)
    return pd.DataFrame(rows, columns=names).astype({**flags, "score": float})


def answer_measures(shown: pd.DataFrame, settings: DriftSettings) -> Iterator[Measure]:
    """Compare what was shown and clicked in the last period with the one before.

    ``shown`` has ``unit``, ``now`` (True in the last period), ``fallback``, ``item``, ``new`` (not
    trained on), ``score`` (NaN without one of the model) and ``clicked``.
    """
    before, now = (shown[shown["now"] == period] for period in (False, True))
    lacks = _few_rows(settings.shown, "shown products", before, now)
    # What a shopper is shown is not independent, so shoppers are the draws.
    draws = before["unit"].nunique(), now["unit"].nunique()
    for name, column in (("fallback", "fallback"), ("new_products", "new")):
        old, new = ((int(rows[column].sum()), len(rows)) for rows in (before, now))
        yield _measure(name, settings.psi, lacks, partial(_compare_faults, old, new, draws))
    compare = partial(compare_values, before["item"].tolist(), now["item"].tolist(), draws)
    yield _measure("shown_products", settings.psi, lacks, compare)
    scored = [rows[np.isfinite(rows["score"])] for rows in (before, now)]
    lacks = _few_rows(_LEAST_CLICKS, "clicks", *(rows[rows["clicked"]] for rows in scored))
    yield _measure("calibration", settings.calibration, lacks, partial(_compare_clicks, *scored))


def _compare_clicks(before: pd.DataFrame, now: pd.DataFrame) -> _Compared:
    old, new = ((rows["score"].to_numpy(), rows["clicked"].to_numpy()) for rows in (before, now))
    first, second = (f"{clicked.mean():.2%} clicked" for _, clicked in (old, new))
    return calibration_error(old, new), first, second


def _few_rows(least: int, what: str, before: pd.DataFrame, now: pd.DataFrame) -> str:
    names = f"{what} in the period before", f"{what} in the last one"
    return _too_few(least, (len(before), names[0]), (len(now), names[1]))
