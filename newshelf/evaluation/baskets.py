"""Baskets without time: whole groups are kept back, each item is left out once."""

import numpy as np

from newshelf.errors import TrainingError
from newshelf.evaluation.interactions import Interactions
from newshelf.evaluation.types import BoolArray, Case, IntArray, Split

__all__ = ["MAX_CASES", "basket_split", "capped"]

MAX_CASES = 2000
"""More cases change the second digit of a metric little and cost full rankings."""


def basket_split(
    interactions: Interactions, test_fraction: float, seed: int, *, max_cases: int = MAX_CASES
) -> list[Split]:
    """Keep whole groups of baskets back; leave out each item of theirs once.

    Returns:
        ``baskets`` (all cases) and, when there is such a case, ``baskets-cold``: the item
        left out is in no training basket.

    Raises:
        TrainingError: with fewer than two groups, or when no basket kept back has two items.
    """
    kept_back = _groups_kept_back(interactions.groups, test_fraction, seed)
    train = [row for row, back in zip(interactions.sequences, kept_back, strict=True) if not back]
    baskets = np.flatnonzero(kept_back)
    cases = [
        case
        for row in baskets
        for case in _leave_one_out(interactions.sequences[row], int(interactions.groups[row]))
    ]
    if not cases:
        raise TrainingError(
            f"none of the {len(baskets)} baskets kept back has two items, so none can be left "
            "out: more baskets, or a larger evaluation.test_fraction, are needed"
        )
    warm = np.zeros(interactions.n_items, dtype=np.bool_)
    warm[np.concatenate(train)] = True
    cold = [case for case in cases if not warm[case.relevant[0]]]
    start = (
        f"Trained on {len(train)} baskets; one item left out of each of {len(baskets)} baskets "
        f"kept back by whole groups, all {interactions.n_items} items ranked"
    )
    splits = []
    for name, chosen, what in (
        ("baskets", cases, ""),
        ("baskets-cold", cold, "; only items of no training basket are asked for"),
    ):
        if chosen:
            kept, note = capped(chosen, max_cases, seed)
            every = np.ones(interactions.n_items, dtype=np.bool_)
            splits.append(Split(name, train, kept, every, f"{start}{what}. {note}"))
    return splits


def _groups_kept_back(groups: IntArray, test_fraction: float, seed: int) -> BoolArray:
    """Whole groups, drawn until they hold the share of the baskets that is asked for."""
    if not 0 < test_fraction < 1:
        raise TrainingError(f"evaluation.test_fraction is {test_fraction}: it must be within 0..1")
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


def _leave_one_out(basket: IntArray, group: int) -> list[Case]:
    if len(basket) < 2:  # noqa: PLR2004  (something must stay as history)
        return []
    places = range(len(basket))
    return [Case(np.delete(basket, place), basket[[place]], group) for place in places]


def capped(cases: list[Case], limit: int, seed: int) -> tuple[list[Case], str]:
    """At most ``limit`` cases, sampled by seed, and the sentence that says so."""
    if len(cases) <= limit:
        return cases, f"{len(cases)} cases."
    chosen = np.sort(np.random.default_rng(seed).choice(len(cases), limit, replace=False))
    return [cases[number] for number in chosen], f"{limit} of {len(cases)} cases, sampled."
