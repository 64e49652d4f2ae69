"""Events of one category, each with the shopper's history from before and from elsewhere.

The question a new category puts: these shoppers are known from other categories, which of
the new category's products fits them? A task of its own for every category.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newshelf.errors import TrainingError
from newshelf.evaluation.types import BoolArray, IntArray

__all__ = ["CategoryEvents", "category_events"]


@dataclass(frozen=True, eq=False)
class CategoryEvents:
    """E events on the C products of one category, oldest first."""

    items: IntArray
    """``(C,)`` catalogue rows, ascending."""
    target: IntArray
    """``(E,)`` which of ``items`` was taken."""
    shopper: IntArray
    """``(E,)`` numbers of shoppers, as in the sequences."""
    history: IntArray
    """``(E, H)`` catalogue rows outside the category, the latest last; filled up with 0."""
    mask: BoolArray
    """``(E, H)`` True where ``history`` holds a row; at least one in each event."""
    taken: BoolArray
    """``(E, C)`` True where the event's shopper took the product at some time."""

    def __len__(self) -> int:
        return len(self.target)

    def of(self, shoppers: IntArray) -> IntArray:
        """Numbers of the events of some shoppers."""
        return np.flatnonzero(np.isin(self.shopper, shoppers))


def category_events(
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray],
    inside: BoolArray,
    known: BoolArray,
    *,
    max_history: int,
) -> CategoryEvents:
    """Collect the events of a category from shoppers' sequences.

    Args:
        sequences: catalogue rows that each shopper took, oldest first.
        timestamps: epoch seconds, parallel to ``sequences``. Only what was taken in an
            earlier second is a history, so never the rest of the same order.
        inside: ``(N,)`` True for the category's products.
        known: ``(N,)`` True for the products that histories may hold.
        max_history: H.

    Raises:
        TrainingError: a product is both inside and known, the lists do not fit together, or
            no event is left.
    """
    if len(sequences) != len(timestamps):
        raise TrainingError(
            f"{len(sequences)} sequences with timestamps for {len(timestamps)}: give both for "
            "every shopper"
        )
    if (inside & known).any():
        raise TrainingError(
            "products of the category are also in histories: take them out of one, a new "
            "category has no past"
        )
    items = np.flatnonzero(inside)
    place = np.full(len(inside), -1)
    place[items] = np.arange(len(items))
    target, shopper, histories = [], [], []
    taken = np.zeros((len(sequences), len(items)), dtype=np.bool_)
    for number, (sequence, times) in enumerate(zip(sequences, timestamps, strict=True)):
        within = inside[sequence]
        if not within.any():
            continue
        taken[number, place[sequence[within]]] = True
        outside = known[sequence]
        rows, at = sequence[outside], times[outside]
        # The first time only: whether it is taken again needs no recommendation.
        _, first = np.unique(sequence, return_index=True)
        for position in np.sort(first[within[first]]):
            history = _latest(rows[: np.searchsorted(at, times[position])], max_history)
            if len(history):
                target.append(place[sequence[position]])
                shopper.append(number)
                histories.append(history)
    if not target:
        raise TrainingError(
            "no event of the category follows an event elsewhere by the same shopper: give a "
            "category whose shoppers have a history"
        )
    padded = np.zeros((len(target), max_history), dtype=np.int64)
    mask = np.zeros(padded.shape, dtype=np.bool_)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
        mask[row, : len(history)] = True
    numbers = np.array(shopper)
    return CategoryEvents(items, np.array(target), numbers, padded, mask, taken[numbers])


def _latest(rows: IntArray, count: int) -> IntArray:
    """The last ``count`` different rows, in order of their last time."""
    _, last = np.unique(rows[::-1], return_index=True)
    return rows[::-1][np.sort(last)[:count]][::-1]
