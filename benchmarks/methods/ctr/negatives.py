"""Items that a user did not take, drawn to learn against."""

from collections.abc import Sequence

import numpy as np

from benchmarks.methods.ctr.impressions import Impressions
from newshelf.errors import TrainingError
from newshelf.evaluation.types import IntArray

__all__ = ["Negatives"]

_ROUNDS = 20
"""Redraws; someone who took 4 in 5 of all items is left with a wrong draw once in 90."""


class Negatives:
    """Uniform draws from the items of the training, without those of the row's own sequence.

    Only an item with an interaction is ever drawn: a new one is not known to be disliked.

    Args:
        sequences: of the training.
        n_items: size of the catalogue.

    Raises:
        TrainingError: some sequence has taken every item there is.
    """

    def __init__(self, sequences: Sequence[IntArray], n_items: int) -> None:
        self._n_items = n_items
        numbers = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
        items = np.concatenate(sequences)
        self._known = np.unique(items)
        self._taken = np.unique(numbers * n_items + items)
        most = np.bincount(self._taken // n_items).max()
        if most == len(self._known):
            raise TrainingError(
                f"a user or basket has taken all {most} items of the training, so nothing is "
                "left to learn against: give more items, or leave that one out"
            )

    def draw(self, rows: Impressions, each: int, rng: np.random.Generator) -> IntArray:
        """``(len(rows), each)`` item rows; the same item may come twice."""
        offset = np.repeat(rows.sequence, each) * self._n_items
        drawn = rng.choice(self._known, len(offset))
        for _ in range(_ROUNDS):
            wrong = np.flatnonzero(self._is_taken(offset + drawn))
            if len(wrong) == 0:
                break
            drawn[wrong] = rng.choice(self._known, len(wrong))
        return drawn.reshape(len(rows), each)

    def labelled(self, rows: Impressions, each: int, rng: np.random.Generator) -> Impressions:
        """The positives, then ``each`` sampled negatives of every one, with labels 1 and 0."""
        drawn = self.draw(rows, each, rng)
        shown = np.concatenate([rows.item, drawn.ravel()])
        who = np.concatenate([np.arange(len(rows)), np.repeat(np.arange(len(rows)), each)])
        both = rows.take(who).showing(shown, 0.0)
        both.label[: len(rows)] = 1.0
        return both

    def _is_taken(self, pairs: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        place = np.searchsorted(self._taken, pairs).clip(max=len(self._taken) - 1)
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._taken[place] == pairs
        return found
