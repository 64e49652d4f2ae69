"""Which items are held out whole, and which cases ask for them."""

from dataclasses import dataclass

import numpy as np

from newshelf.errors import TrainingError
from newshelf.evaluation.interactions import Interactions, latest
from newshelf.evaluation.types import BoolArray, Case

__all__ = ["MIN_CASES", "ColdCases", "choose_cold_items", "cold_cases"]

MIN_CASES = 200
"""Fewer cases after the cut, and those before it are asked for too."""


@dataclass(frozen=True)
class ColdCases:
    """The cases of an item-cold split."""

    cases: list[Case]
    after_cut: bool
    """True when all that is asked for happened after the training ended."""


def choose_cold_items(
    interactions: Interactions,
    fraction: float,
    seed: int,
    strata: "np.ndarray[tuple[int], np.dtype[np.str_]] | None" = None,
) -> BoolArray:
    """Hold out a share of the items that have interactions, evenly over the strata.

    Items in random order within their stratum are laid end to end, and every
    1/fraction-th is taken from a random start: each stratum gives its share, to one item.
    Items without an interaction are never chosen, as nothing is known to be right for them.

    Args:
        interactions: whose items are chosen.
        fraction: within 0..1, both excluded.
        seed: of order and start.
        strata: (n_items,) labels, or None for one stratum.

    Returns:
        (n_items,) True where held out; at least one, and never all.

    Raises:
        TrainingError: when fewer than two items have interactions, or for a bad fraction.
    """
    if not 0 < fraction < 1:
        raise TrainingError(f"evaluation.cold_fraction is {fraction}: it must be within 0..1")
    seen = np.unique(np.concatenate(interactions.sequences))
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
) -> ColdCases:
    """One case per user who has warm items before cold ones.

    First choice: history is the user's warm items before the cut, relevant are the cold
    items at or after it. When that gives fewer than ``min_cases``, time is cut per user
    instead: relevant are all cold items from the first one on that has a warm item before
    the cut and before itself; history is those warm items. Either way, a history is
    strictly earlier than everything it is asked for, and holds training items only.
    """
    after = _cases(interactions, cut, cold, own_cut=False)
    if len(after) >= min_cases:
        return ColdCases(after, after_cut=True)
    any_time = _cases(interactions, cut, cold, own_cut=True)
    if len(any_time) > len(after):
        return ColdCases(any_time, after_cut=False)
    return ColdCases(after, after_cut=True)


def _cases(interactions: Interactions, cut: int, cold: BoolArray, *, own_cut: bool) -> list[Case]:
    cases = []
    stamps = interactions.timestamps or []
    for sequence, times in zip(interactions.sequences, stamps, strict=True):
        is_cold = cold[sequence]
        moment = cut
        if own_cut:
            warm = times[~is_cold]
            asked = times[is_cold & (times > warm[0])] if len(warm) else times[:0]
            moment = min(cut, int(asked[0])) if len(asked) else cut
        history = sequence[~is_cold & (times < moment)]
        relevant = np.unique(sequence[is_cold & (times >= moment)])
        if len(history) and len(relevant):
            cases.append(Case(latest(history), relevant))
    return cases
