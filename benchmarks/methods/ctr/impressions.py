"""Rows that a click model learns from: impressions and sampled negatives."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from newshelf.errors import TrainingError
from newshelf.evaluation.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Impressions:
    """N rows, in flat arrays."""

    sequence: IntArray
    """(N,) whose sequence of the training a row belongs to, for drawing its negatives."""
    user: IntArray
    """(N,) row of the users' vocabulary; 0 for someone unknown."""
    item: IntArray
    """(N,) row of ``catalog.items``."""
    history: IntArray
    """(N, L) rows of ``catalog.items`` taken before; -1 is an empty place."""
    timestamp: IntArray
    """(N,) epoch seconds."""
    label: FloatArray
    """(N,) 1 where it took, else 0."""

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: IntArray) -> "Impressions":
        """Some of the rows, or one of them several times."""
        return Impressions(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})

    def showing(self, item: IntArray, label: float) -> "Impressions":
        """The same askers, shown other items."""
        labels = np.full(len(item), label, dtype=np.float32)
        return Impressions(self.sequence, self.user, item, self.history, self.timestamp, labels)


def positives(
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray],
    max_history: int,
    users: IntArray | None = None,
) -> Impressions:
    """A row with label 1 for each item when it was first taken in its sequence.

    Args:
        sequences: item rows, oldest first.
        timestamps: parallel to ``sequences``.
        max_history: L, the most recent items that came before.
        users: (len(sequences),) rows of the users' vocabulary; None for all unknown.
    """
    parts = []
    for number, (sequence, times) in enumerate(zip(sequences, timestamps, strict=True)):
        _, first = np.unique(sequence, return_index=True)
        first = np.sort(first)
        parts.append(
            Impressions(
                sequence=np.full(len(first), number, dtype=np.int64),
                user=np.full(len(first), 0 if users is None else users[number], dtype=np.int64),
                item=sequence[first],
                history=_windows(sequence, max_history)[first],
                timestamp=times[first],
                label=np.ones(len(first), dtype=np.float32),
            )
        )
    return _joined(parts)


def _windows(sequence: IntArray, length: int) -> IntArray:
    """(len(sequence), length) what came before each place, nearest first; -1 where nothing did."""
    places = np.arange(len(sequence))[:, None] - np.arange(1, length + 1)[None, :]
    return np.where(places < 0, -1, sequence[np.maximum(places, 0)])


def _joined(parts: Sequence[Impressions]) -> Impressions:
    return Impressions(
        **{
            part.name: np.concatenate([getattr(piece, part.name) for piece in parts])
            for part in fields(Impressions)
        }
    )


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
