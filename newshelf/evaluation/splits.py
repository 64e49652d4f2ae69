"""Train on what was known, ask for what came after; see ``docs/evaluation.md``.

Three protocols: by time, by whole items within time (item-cold), and by whole groups of
baskets. None of them lets a random share of single interactions go to the test side: that
flatters, because what is asked for was all but taught.
"""

from datetime import UTC, datetime

import numpy as np

from newshelf.catalog.schema import category_levels
from newshelf.config import EvaluationSettings
from newshelf.errors import TrainingError
from newshelf.evaluation.baskets import MAX_CASES, basket_split, capped
from newshelf.evaluation.cold import ColdCases, choose_cold_items, cold_cases
from newshelf.evaluation.interactions import (
    CatalogTables,
    Interactions,
    basket_interactions,
    latest,
    read_interactions,
)
from newshelf.evaluation.types import BoolArray, Case, IntArray, Split

__all__ = [
    "MAX_CASES",
    "MIN_EVENT_CASES",
    "basket_split",
    "cold_split",
    "cut_at",
    "default_splits",
    "time_split",
]

MIN_EVENT_CASES = 30
"""Fewer cases from events, and baskets are evaluated on instead where there are some."""


def default_splits(catalog: CatalogTables, settings: EvaluationSettings, seed: int) -> list[Split]:
    """The splits of ``evaluate``: which ones depends on what the catalogue has.

    Events give ``time``, ``cold`` and ``cold-among-new``. Baskets give ``baskets`` and, when
    a kept-back basket holds an item of no training basket, ``baskets-cold``; they are used
    when there are no events, or when the events give fewer than ``MIN_EVENT_CASES`` cases.

    Raises:
        TrainingError: when the data are too few for them; the message says what is missing.
    """
    interactions = read_interactions(catalog)
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
    catalog: CatalogTables, interactions: Interactions, settings: EvaluationSettings, seed: int
) -> list[Split]:
    levels = (
        category_levels(value if isinstance(value, str) else None)
        for value in catalog.items["product_type"]
    )
    strata = np.array([level[0] if level else "" for level in levels], dtype=np.str_)
    return [
        time_split(interactions, settings.test_fraction, seed),
        *cold_split(
            interactions, settings.cold_fraction, settings.test_fraction, seed, strata=strata
        ),
    ]


def time_split(
    interactions: Interactions,
    test_fraction: float,
    seed: int = 0,
    *,
    max_cases: int = MAX_CASES,
) -> Split:
    """Train on everything before one moment, ask for what each user came to after it.

    Cases are the users with training interactions; relevant are the distinct items after
    the cut that the user had not met before it.

    Raises:
        TrainingError: for baskets, for events of one single moment, or without a case.
    """
    stamps = _timestamps(interactions)
    cut = _cut(stamps, test_fraction)
    train, train_stamps, cases = cut_at(interactions, cut)
    if not cases:
        raise TrainingError(
            f"no user came back for another item after {_day(cut)}, so nothing can be asked: "
            "more events, or a larger evaluation.test_fraction, are needed"
        )
    kept, note = capped(cases, max_cases, seed)
    return Split(
        name="time",
        train=train,
        train_timestamps=train_stamps,
        cases=kept,
        candidates=np.ones(interactions.n_items, dtype=np.bool_),
        description=f"Trained on events before {_day(cut)} (the earliest "
        f"{1 - test_fraction:.0%}); asked for the items users first came to after it; "
        f"all {interactions.n_items} items ranked. {note}",
    )


def cut_at(
    interactions: Interactions, cut: int
) -> tuple[list[IntArray], list[IntArray], list[Case]]:
    """What was before a moment, and what each user first came to after it.

    Args:
        interactions: of users, with time.
        cut: epoch seconds.

    Returns:
        Training sequences and their times, of users who were there before; and the cases.
    """
    train, train_stamps, cases = [], [], []
    for sequence, times in zip(interactions.sequences, _timestamps(interactions), strict=True):
        past = times < cut
        if not past.any():
            continue
        train.append(sequence[past])
        train_stamps.append(times[past])
        relevant = np.setdiff1d(sequence[~past], sequence[past])
        if len(relevant):
            cases.append(Case(latest(sequence[past]), relevant))
    return train, train_stamps, cases


def cold_split(
    interactions: Interactions,
    cold_fraction: float,
    test_fraction: float,
    seed: int,
    *,
    strata: "np.ndarray[tuple[int], np.dtype[np.str_]] | None" = None,
    max_cases: int = MAX_CASES,
) -> list[Split]:
    """Hold whole items out: none of their interactions is in training or in a history.

    Training is cut by time as well. How the cases are found is told in
    :func:`newshelf.evaluation.cold.cold_cases`.

    Args:
        interactions: of users, with time.
        cold_fraction: share of the items with interactions that is held out.
        test_fraction: share of the events after the cut.
        seed: of the choice of items and of the sample of cases.
        strata: (n_items,) labels; each gives about the same share of its items.
        max_cases: cases beyond it are sampled.

    Returns:
        ``cold`` (all items ranked) and ``cold-among-new`` (only the held-out items ranked),
        with the same training and the same cases.

    Raises:
        TrainingError: as :func:`time_split`, or when the held-out items give no case.
    """
    stamps = _timestamps(interactions)
    cut = _cut(stamps, test_fraction)
    cold = choose_cold_items(interactions, cold_fraction, seed, strata)
    train, train_stamps = _training(interactions, stamps, cut, cold)
    found = cold_cases(interactions, cut, cold)
    if not found.cases or not train:
        raise TrainingError(
            f"the {int(cold.sum())} items held out give no case with a history before them: "
            "more events, or a larger evaluation.cold_fraction, are needed"
        )
    kept, note = capped(found.cases, max_cases, seed)
    start = _cold_description(cold, cut, found)
    every = np.ones(interactions.n_items, dtype=np.bool_)
    ranked = (
        ("cold", every, f"all {interactions.n_items} items ranked"),
        ("cold-among-new", cold, "only the held-out items ranked"),
    )
    return [
        Split(name, train, kept, candidates, f"{start}; {what}. {note}", train_stamps)
        for name, candidates, what in ranked
    ]


def _timestamps(interactions: Interactions) -> list[IntArray]:
    if interactions.timestamps is None:
        raise TrainingError("baskets have no time: only events can be split by time")
    if not interactions.sequences:
        raise TrainingError("there are no events of known items, so there is nothing to split")
    return interactions.timestamps


def _cut(stamps: list[IntArray], test_fraction: float) -> int:
    """The moment from which on events are kept back; both sides get some."""
    if not 0 < test_fraction < 1:
        raise TrainingError(f"evaluation.test_fraction is {test_fraction}: it must be within 0..1")
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


def _training(
    interactions: Interactions, stamps: list[IntArray], cut: int, cold: BoolArray
) -> tuple[list[IntArray], list[IntArray]]:
    """The sequences before the cut without the cold items, and their times."""
    train, train_stamps = [], []
    for sequence, times in zip(interactions.sequences, stamps, strict=True):
        keep = (times < cut) & ~cold[sequence]
        if keep.any():
            train.append(sequence[keep])
            train_stamps.append(times[keep])
    return train, train_stamps


def _cold_description(cold: BoolArray, cut: int, found: ColdCases) -> str:
    when = (
        f"asked for those that users came to after {_day(cut)}"
        if found.after_cut
        else "asked for those that users came to at any time after the history "
        f"(too few did after {_day(cut)})"
    )
    return (
        f"{int(cold.sum())} items held out whole, trained on the events of the others before "
        f"{_day(cut)}; {when}"
    )


def _day(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"
