"""Episodes: small classification tasks, drawn from a catalogue's types.

An episode has N classes, of each k labelled rows (the support) and q rows to classify
(the queries), all different (Vinyals et al., Matching Networks, 2016).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from newshelf.errors import TrainingError
from newshelf.transfer.loop import Batches

__all__ = ["Episode", "EpisodeSampler", "stack_episodes"]

_FEWEST_WAYS = 2


class Episode(NamedTuple):
    """Row numbers and classes; with a leading dimension T when T episodes are stacked."""

    support: Tensor
    """``(N·k,)`` int64 rows, class by class."""
    support_labels: Tensor
    """``(N·k,)`` int64 in 0..N-1."""
    queries: Tensor
    """``(N·q,)`` int64 rows, class by class."""
    query_labels: Tensor
    """``(N·q,)`` int64 in 0..N-1."""


class EpisodeSampler:
    """Draws episodes from the rows of some classes.

    Args:
        labels: ``(R,)`` int64, the class of each row; negative for rows to leave out.
        ways: N, classes of an episode.
        shots: k, labelled rows of a class.
        queries: q, rows of a class to be classified.

    Raises:
        TrainingError: fewer than N classes have the k + q rows that an episode needs.
    """

    def __init__(self, labels: Tensor, *, ways: int, shots: int, queries: int) -> None:
        if ways < _FEWEST_WAYS or shots < 1 or queries < 1:
            raise TrainingError(
                f"an episode of {ways} classes, {shots} shots and {queries} queries: ask for at "
                "least two classes, one shot and one query"
            )
        self.ways, self.shots, self.queries = ways, shots, queries
        classes = torch.unique(labels[labels >= 0]).tolist()
        rows = [torch.nonzero(labels == value).flatten() for value in classes]
        self._rows = [of_class for of_class in rows if len(of_class) >= shots + queries]
        if len(self._rows) < ways:
            largest = sorted((len(of_class) for of_class in rows), reverse=True)[:ways]
            raise TrainingError(
                f"{len(self._rows)} of {len(classes)} classes have the {shots} + {queries} rows "
                f"that an episode needs, {ways} must (the largest have {largest}): label more "
                "rows, or ask for fewer shots, queries or classes"
            )

    @property
    def classes(self) -> int:
        """How many classes are large enough to be drawn."""
        return len(self._rows)

    def draw(self, generator: torch.Generator) -> Episode:
        """One episode."""
        picked = torch.randperm(len(self._rows), generator=generator)[: self.ways].tolist()
        each = self.shots + self.queries
        rows = torch.stack(
            [
                self._rows[at][torch.randperm(len(self._rows[at]), generator=generator)[:each]]
                for at in picked
            ]
        )
        number = torch.arange(self.ways)
        return Episode(
            rows[:, : self.shots].flatten(),
            number.repeat_interleave(self.shots),
            rows[:, self.shots :].flatten(),
            number.repeat_interleave(self.queries),
        )

    def batches(self, *, tasks: int, steps: int) -> Batches:
        """For ``fit``: an epoch of ``steps`` batches, each of ``tasks`` stacked episodes."""

        def of_epoch(epoch: int, generator: torch.Generator) -> list[Episode]:  # noqa: ARG001
            return [
                stack_episodes([self.draw(generator) for _ in range(tasks)]) for _ in range(steps)
            ]

        return of_epoch


def stack_episodes(episodes: Sequence[Episode]) -> Episode:
    """T episodes of one shape as a single one, ``(T, …)`` each."""
    return Episode(*(torch.stack(parts) for parts in zip(*episodes, strict=True)))
