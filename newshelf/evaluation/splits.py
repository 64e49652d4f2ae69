"""Splits of interactions into training data and cases; see ``docs/evaluation.md``.

There are three protocols: by time, by whole items within time (item-cold), and by whole groups
of baskets, of which each item is left out once. None of them holds out single interactions at
random, which would leak the answers into the training data.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import (
    TYPE_BITS,
    Interactions,
    Sequences,
    basket_interactions,
    latest,
    read_interactions,
)
from newshelf.catalog.schema import category_levels
from newshelf.config import EvaluationSettings, RetrainSettings, Settings
from newshelf.errors import EvidenceError, TrainingError
from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray, Split

MIN_CASES = 200
"""Cold cases after the cut; with fewer, cases before it are used too."""


def choose_cold_items(
    interactions: Interactions,
    fraction: float,
    seed: int,
    strata: "np.ndarray[tuple[int], np.dtype[np.str_]] | None" = None,
) -> BoolArray:
    """Return (n_items,) True for the items with interactions to hold out: at least one, never all.

    A systematic sample: of the items sorted by stratum, in random order within each, every
    1/fraction-th is taken from a random start. ``strata`` (n_items,) are labels; None is one.
    """
    seen = np.unique(interactions.items)
    if len(seen) < 2:  # noqa: PLR2004  (one to hold out, one to learn from)
        raise TrainingError("only one item has events: none can be held out")
    generator = np.random.default_rng(seed)
    seen = generator.permutation(seen)
    if strata is not None:
        seen = seen[np.argsort(strata[seen], kind="stable")]
    count = min(max(round(fraction * len(seen)), 1), len(seen) - 1)
    places = (np.arange(count) + generator.random()) * len(seen) / count
    cold = np.zeros(interactions.n_items, dtype=np.bool_)
    cold[seen[places.astype(np.int64)]] = True
    return cold


def cold_cases(
    interactions: Interactions, cut: int, cold: BoolArray, min_cases: int = MIN_CASES
) -> tuple[list[Case], bool]:
    """Return one case per user who has warm items before cold ones, and whether time is cut once.

    The history holds the user's warm items before the cut, relevant are the cold items at or
    after it. If that gives fewer than ``min_cases``, time is cut per user: at the first cold item
    with a warm item before it, or at the common cut if that is earlier. Either way, a history is
    strictly earlier than the relevant items and holds training items only.
    """
    after = _cases(interactions, cut, cold, own_cut=False)
    if len(after) >= min_cases:
        return after, True
    any_time = _cases(interactions, cut, cold, own_cut=True)
    if len(any_time) > len(after):
        return any_time, False
    return after, True


def _cases(interactions: Interactions, cut: int, cold: BoolArray, *, own_cut: bool) -> list[Case]:
    cases = []
    stamps = interactions.timestamps or []
    for sequence, times in zip(interactions.sequences, stamps, strict=True):
        is_cold = cold[sequence]
        moment = cut
        if own_cut:
            warm = times[~is_cold]
            later = times[is_cold & (times > warm[0])] if len(warm) else times[:0]
            moment = min(cut, int(later[0])) if len(later) else cut
        history = sequence[~is_cold & (times < moment)]
        relevant = np.unique(sequence[is_cold & (times >= moment)])
        if len(history) and len(relevant):
            cases.append(Case(latest(history), relevant))
    return cases


MAX_CASES = 2000
"""More cases hardly change the second digit of a metric, and each costs a full ranking."""


def basket_split(interactions: Interactions, test_fraction: float, seed: int) -> list[Split]:
    """Hold out whole groups of baskets, and leave out each of their items once.

    Returns ``baskets`` (all cases) and, if there are any, ``baskets-cold`` (cases whose item is in
    no training basket).
    """
    held_out = _held_out_groups(interactions.groups, test_fraction, seed)
    rows = zip(interactions.sequences, held_out, strict=True)
    train = Sequences([row for row, back in rows if not back])
    baskets = np.flatnonzero(held_out)
    cases = [
        Case(np.delete(basket, place), basket[[place]], int(interactions.groups[row]))
        for row in baskets.tolist()
        # Something must stay as history.
        if len(basket := interactions.sequences[row]) > 1
        for place in range(len(basket))
    ]
    if not cases:
        raise TrainingError(
            f"none of the {len(baskets)} baskets kept back has two items, so none can be left "
            "out: more baskets, or a larger evaluation.test_fraction, are needed"
        )
    warm = np.zeros(interactions.n_items, dtype=np.bool_)
    warm[train.items] = True
    cold = [case for case in cases if not warm[case.relevant[0]]]
    start = (
        f"Trained on {len(train.sequences)} baskets; one item left out of each of {len(baskets)} "
        f"baskets kept back by whole groups, all {interactions.n_items} items ranked"
    )
    splits = []
    for name, chosen, what in (
        ("baskets", cases, ""),
        ("baskets-cold", cold, "; only items of no training basket are asked for"),
    ):
        if chosen:
            kept, note = capped(chosen, MAX_CASES, seed)
            every = np.ones(interactions.n_items, dtype=np.bool_)
            splits.append(Split(name, train, kept, every, f"{start}{what}. {note}"))
    return splits


def _held_out_groups(groups: IntArray, test_fraction: float, seed: int) -> BoolArray:
    """Return (baskets,) True for random whole groups with the given share of the baskets."""
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) <= 1:
        raise TrainingError(
            f"the baskets form {len(names)} group, and a group is never torn apart: at least "
            "two baskets (or scenes, with a scene_id column) are needed"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    needed = np.searchsorted(np.cumsum(sizes[order]), test_fraction * len(groups)) + 1
    chosen = names[order[: min(int(needed), len(names) - 1)]]
    return np.isin(groups, chosen)


def capped(
    cases: list[Case], limit: int, seed: int | np.random.Generator
) -> tuple[list[Case], str]:
    """Return at most ``limit`` cases, sampled if there are more, and a sentence about it."""
    if len(cases) <= limit:
        return cases, f"{len(cases)} cases."
    chosen = np.sort(np.random.default_rng(seed).choice(len(cases), limit, replace=False))
    return [cases[number] for number in chosen], f"{limit} of {len(cases)} cases, sampled."


MIN_EVENT_CASES = 30
"""Cases from events; with fewer, baskets are used instead if there are any."""


def default_splits(
    catalog: Catalog, settings: EvaluationSettings, seed: int, counted: Settings | None = None
) -> list[Split]:
    """Return the splits of ``./run evaluate``: of events, or of baskets if events are few.

    ``counted`` says which events count, and what; without it, all count alike.
    """
    interactions = read_interactions(catalog, counted)
    if interactions.timestamps is None:
        return basket_split(interactions, settings.test_fraction, seed)
    baskets = basket_interactions(catalog)
    try:
        splits = _event_splits(catalog, interactions, settings, seed)
    except TrainingError:
        if baskets is None:
            raise
    else:
        if baskets is None or min(len(split.cases) for split in splits) >= MIN_EVENT_CASES:
            return splits
    return basket_split(baskets, settings.test_fraction, seed)


def _event_splits(
    catalog: Catalog, interactions: Interactions, settings: EvaluationSettings, seed: int
) -> list[Split]:
    tops = [(*category_levels(cell), "")[0] for cell in catalog.items["product_type"]]
    strata = np.array(tops, dtype=np.str_)
    by_time = time_split(interactions, settings.test_fraction, seed)
    return [
        by_time,
        *_by_type(by_time, interactions, settings.test_fraction, seed),
        *cold_split(
            interactions, settings.cold_fraction, settings.test_fraction, seed, strata=strata
        ),
    ]


def time_split(
    interactions: Interactions, test_fraction: float, seed: int = 0, *, max_cases: int = MAX_CASES
) -> Split:
    """Train on everything before one moment, and test on each user's new items after it.

    Raises:
        TrainingError: the interactions are baskets or all of one moment, or there is no case.
    """
    cut = _cut(_timestamps(interactions), test_fraction)
    train, cases = cut_at(interactions, cut)
    if not cases:
        raise TrainingError(
            f"no user came back for another item after {_day(cut)}, so nothing can be asked: "
            "more events, or a larger evaluation.test_fraction, are needed"
        )
    kept, note = capped(cases, max_cases, seed)
    description = (
        f"Trained on events before {_day(cut)} (the earliest {1 - test_fraction:.0%}); asked for "
        f"the items users first came to after it; all {interactions.n_items} items ranked. {note}"
    )
    every = np.ones(interactions.n_items, dtype=np.bool_)
    return Split("time", train, kept, every, description)


_TYPES = {"clicks": ("view", "click"), "purchases": ("purchase",)}


def _by_type(
    by_time: Split, interactions: Interactions, test_fraction: float, seed: int
) -> list[Split]:
    """Return the split again for views and clicks, and for purchases, if there are enough of both.

    The history is the same; asked for are the new items with an event of these types.
    """
    stamps = _timestamps(interactions)
    cut = _cut(stamps, test_fraction)
    splits = []
    for name, types in _TYPES.items():
        bits = sum(TYPE_BITS[one] for one in types)
        cases = [
            Case(latest(sequence[past]), relevant)
            for sequence, past, found in zip(
                interactions.sequences,
                (times < cut for times in stamps),
                interactions.types or [],
                strict=False,
            )
            if past.any()
            and len(relevant := np.setdiff1d(sequence[~past & (found & bits > 0)], sequence[past]))
        ]
        kept, note = capped(cases, MAX_CASES, seed)
        text = f"Trained as for {by_time.name}; asked for the new items of {name}. {note}"
        splits.append(replace(by_time, name=f"time-{name}", cases=kept, description=text))
    return splits if min(len(split.cases) for split in splits) >= MIN_EVENT_CASES else []


class Holdout(NamedTuple):
    """Training data, and cases that they do not know."""

    train: Sequences
    cases: list[Case]


def cut_at(whole: Sequences, cut: float, left_out: BoolArray | None = None) -> Holdout:
    """Return the training data before a moment, and cases of what came after it.

    A case asks for a user's new items. ``cut`` is in epoch seconds; baskets give nothing. Items of
    ``left_out`` ``(n_items,)`` have no interactions in training data and histories.
    """
    train, stamps, cases = [], [], []
    weights: list[FloatArray] = []
    for number, times in enumerate(whole.timestamps or ()):
        sequence = whole.sequences[number]
        past = times < cut
        kept = past if left_out is None else past & ~left_out[sequence]
        if not kept.any():
            continue
        train.append(sequence[kept])
        stamps.append(times[kept])
        weights += [] if whole.weights is None else [whole.weights[number][kept]]
        relevant = np.setdiff1d(sequence[~past], sequence[past])
        if len(relevant):
            cases.append(Case(latest(sequence[kept]), relevant))
    return Holdout(Sequences(train, stamps, weights or None), cases)


def cold_split(
    interactions: Interactions,
    cold_fraction: float,
    test_fraction: float,
    seed: int,
    *,
    strata: "np.ndarray[tuple[int], np.dtype[np.str_]] | None" = None,
) -> list[Split]:
    """Hold out whole items: none of their interactions is in the training data or a history.

    The training data are cut by time as well; :func:`cold_cases` describes the cases.
    ``strata`` (n_items,) are labels; each gives about the same share of its items.

    Returns ``cold`` (all items ranked) and ``cold-among-new`` (only the held-out items ranked),
    with the same training data and cases.
    """
    cut = _cut(_timestamps(interactions), test_fraction)
    cold = choose_cold_items(interactions, cold_fraction, seed, strata)
    train, _ = cut_at(interactions, cut, cold)
    cases, after_cut = cold_cases(interactions, cut, cold)
    if not cases or not train.sequences:
        raise TrainingError(
            f"the {int(cold.sum())} items held out give no case with a history before them: "
            "more events, or a larger evaluation.cold_fraction, are needed"
        )
    kept, note = capped(cases, MAX_CASES, seed)
    start = _cold_description(cold, cut, after_cut=after_cut)
    every = np.ones(interactions.n_items, dtype=np.bool_)
    ranked = (
        ("cold", every, f"all {interactions.n_items} items ranked"),
        ("cold-among-new", cold, "only the held-out items ranked"),
    )
    return [
        Split(name, train, kept, candidates, f"{start}; {what}. {note}")
        for name, candidates, what in ranked
    ]


def _timestamps(interactions: Interactions) -> Sequence[IntArray]:
    if interactions.timestamps is None:
        raise TrainingError("baskets have no time: only events can be split by time")
    if not interactions.sequences:
        raise TrainingError("there are no events of known items, so there is nothing to split")
    return interactions.timestamps


def _cut(stamps: Sequence[IntArray], test_fraction: float) -> int:
    """Return the moment from which events are held out; both sides get some."""
    every = np.concatenate(stamps)
    cut = int(np.quantile(every, 1 - test_fraction, method="higher"))
    if cut > every.min():
        return cut
    later = every[every > cut]
    if len(later) == 0:
        raise TrainingError(
            "all events have the same timestamp, so no split by time is possible: check that "
            "timestamp is the time of the event in epoch seconds"
        )
    return int(later.min())


def _cold_description(cold: BoolArray, cut: int, *, after_cut: bool) -> str:
    when = (
        f"asked for those that users came to after {_day(cut)}"
        if after_cut
        else "asked for those that users came to at any time after the history "
        f"(too few did after {_day(cut)})"
    )
    return (
        f"{int(cold.sum())} items held out whole, trained on the events of the others before "
        f"{_day(cut)}; {when}"
    )


def _day(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"


_DAY_S = 86_400


def newest_split(
    interactions: Interactions, after: int, settings: RetrainSettings, seed: int
) -> Split:
    """Return the newest days' cases, and the events before them.

    ``after`` is the newest event, in epoch seconds, that the served version has seen: it would
    know the answers of earlier cases. Raises ``EvidenceError`` with too few cases.
    """
    stamps = interactions.timestamps
    if not stamps:
        raise EvidenceError(
            "there are no events with times, so the newest days cannot be held out: record "
            "feedback, or use --gate none"
        )
    newest = max(int(times[-1]) for times in stamps)
    cut = max(newest - settings.gate_days * _DAY_S, after + 1)
    days = f"{(newest - cut) / _DAY_S:.1f} newest days"
    train, cases = cut_at(interactions, cut)
    if len(cases) < settings.min_cases:
        raise EvidenceError(
            f"{len(cases)} shoppers with a history came to a further product in the {days} that "
            f"the served version has not seen, and the gate needs {settings.min_cases} of them "
            "(retrain.min_cases, retrain.gate_days): wait for more traffic, or use --gate none"
        )
    kept, note = capped(cases, MAX_CASES, seed)
    description = (
        f"Products that shoppers first came to in the {days}, which neither version has seen; all "
        f"{interactions.n_items} products ranked. {note}"
    )
    every = np.ones(interactions.n_items, dtype=np.bool_)
    return Split("newest", train, kept, every, description)
