"""Adapting the Siamese scorer to a category from a few events.

The support of a task are k events of its category, the queries events of other shoppers.
The loss of an event with history ``H`` and product ``p`` is InfoNCE over the category's
products, without those that the shopper took at another time::

    loss = -log  exp(s(H,p)) / Σ_{c in category} exp(s(H,c))

A product that nobody took yet is a negative like any other: the k events say which of a
new shelf's products go with which histories, and that is all there is to learn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from benchmarks.methods.meta.category_events import CategoryEvents
from benchmarks.methods.meta.maml import Predict
from benchmarks.methods.meta.tilt import tilted_order
from newshelf.errors import TrainingError
from newshelf.evaluation.types import IntArray
from newshelf.nn.scorer import SiameseScorer
from newshelf.transfer.loop import Batches, Objective

__all__ = [
    "CategoryScorer",
    "EventTasks",
    "Events",
    "JointEvents",
    "event_loss",
    "event_part",
    "one_event_each",
]


class Events(NamedTuple):
    """E events of one category as tensors; with a leading dimension T for T tasks."""

    history: Tensor
    """``(E, H, F)`` float32 embeddings."""
    mask: Tensor
    """``(E, H)`` bool."""
    candidates: Tensor
    """``(C, F)`` float32 embeddings."""
    target: Tensor
    """``(E,)`` int64, which candidate was taken."""
    left_out: Tensor
    """``(E, C)`` bool: candidates that are no negatives of the event."""


class CategoryScorer(nn.Module):
    """A Siamese scorer of histories against one list of candidates for all.

    Shape: ``(E, H, F)``, ``(E, H)`` bool and ``(C, F)`` → ``(E, C)``.
    """

    def __init__(self, scorer: SiameseScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, history: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        """Scores, higher is better."""
        projected = self.scorer.project(candidates).expand(len(history), -1, -1)
        scores: Tensor = self.scorer.score(self.scorer.project(history), mask, projected)[0]
        return scores


def event_loss(predict: Predict, part: Events) -> Tensor:
    """Mean InfoNCE of the events; ``predict`` is a :class:`CategoryScorer`."""
    scores = predict(part.history, part.mask, part.candidates)
    return F.cross_entropy(scores.masked_fill(part.left_out, -torch.inf), part.target)


def event_part(
    embeddings: Tensor, events: CategoryEvents, numbers: IntArray, candidates: IntArray | None
) -> Events:
    """Some events of a category against some of its products.

    Args:
        embeddings: ``(N, F)`` float32, of the catalogue.
        events: of the category.
        numbers: which of them.
        candidates: which of ``events.items``, the events' targets among them; None is all.

    Raises:
        TrainingError: an embedding is not a number.
    """
    chosen = np.arange(len(events.items)) if candidates is None else candidates
    place = np.full(len(events.items), -1)
    place[chosen] = np.arange(len(chosen))
    target = place[events.target[numbers]]
    left_out = events.taken[numbers][:, chosen].copy()
    left_out[np.arange(len(numbers)), target] = False
    part = Events(
        embeddings[torch.from_numpy(events.history[numbers])],
        torch.from_numpy(events.mask[numbers]),
        embeddings[torch.from_numpy(events.items[chosen])],
        torch.from_numpy(target),
        torch.from_numpy(left_out),
    )
    if not (torch.isfinite(part.history).all() and torch.isfinite(part.candidates).all()):
        raise TrainingError(
            "embeddings of the category's products or histories are no numbers: encode the "
            "catalogue anew"
        )
    return part


@dataclass(frozen=True)
class EventTasks:
    """Draws tasks from the events of categories.

    Raises:
        TrainingError: a category has too few shoppers, events or products for a task.
    """

    embeddings: Tensor
    """``(N, F)`` float32, of the catalogue."""
    categories: Sequence[CategoryEvents]
    support: int
    """Events to adapt to."""
    queries: int
    """Events of other shoppers."""
    candidates: int
    """Products of a task: the targets, and others of the category drawn at random. It is
    the same number for all tasks, so that they stack."""
    tilt: float = 0.0
    """How far the products' popularity differs from task to task; see
    :mod:`benchmarks.methods.meta.tilt`. Joint training wants 0."""

    def __post_init__(self) -> None:
        if not self.categories:
            raise TrainingError("no category to draw tasks from: give at least one")
        needed = self.support + self.queries
        for number, events in enumerate(self.categories):
            if len(events.items) < self.candidates:
                raise TrainingError(
                    f"category {number} has {len(events.items)} products, a task takes "
                    f"{self.candidates}: leave it out, or ask for fewer"
                )
            shoppers = len(np.unique(events.shopper))
            if shoppers < needed:
                raise TrainingError(
                    f"category {number} has events of {shoppers} shoppers, a task takes "
                    f"{self.support} + {self.queries}, one of each: leave it out, or ask for "
                    "fewer events"
                )
        if self.candidates < needed:
            raise TrainingError(
                f"{self.candidates} candidates cannot hold the targets of {needed} events: ask "
                f"for at least {needed}"
            )

    def draw(self, category: int, rng: np.random.Generator) -> tuple[Events, Events]:
        """Support and queries of one task: one event each of different shoppers."""
        events = self.categories[category]
        numbers = one_event_each(events, self.support + self.queries, rng, self.tilt)
        chosen = self._candidates(events, numbers, rng)
        support, queries = numbers[: self.support], numbers[self.support :]
        return (
            event_part(self.embeddings, events, support, chosen),
            event_part(self.embeddings, events, queries, chosen),
        )

    def batches(self, *, tasks: int, steps: int) -> Batches:
        """For ``fit``: an epoch of ``steps`` batches of ``tasks`` stacked tasks."""

        def of_epoch(epoch: int, generator: torch.Generator) -> list[tuple[Events, Events]]:  # noqa: ARG001
            seed = int(torch.randint(2**31, (), generator=generator))
            rng = np.random.default_rng(seed)
            return [self._stacked(rng, tasks) for _ in range(steps)]

        return of_epoch

    def _stacked(self, rng: np.random.Generator, tasks: int) -> tuple[Events, Events]:
        drawn = [self.draw(int(rng.integers(len(self.categories))), rng) for _ in range(tasks)]
        support, queries = zip(*drawn, strict=True)
        return _stack(support), _stack(queries)

    def _candidates(
        self, events: CategoryEvents, numbers: IntArray, rng: np.random.Generator
    ) -> IntArray:
        targets = np.unique(events.target[numbers])
        others = np.setdiff1d(np.arange(len(events.items)), targets)
        drawn = rng.permutation(others)[: self.candidates - len(targets)]
        return np.concatenate([targets, drawn])


class JointEvents(Objective):
    """Trains one scorer on the events of all categories alike: the general model.

    A batch is what :meth:`EventTasks.batches` gives; support and queries count the same.
    """

    def __init__(self, model: CategoryScorer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: tuple[Events, Events]) -> dict[str, Tensor]:
        """Mean loss of all the tasks' events."""
        mapped = vmap(partial(event_loss, self.model), randomness="different")
        sums = [mapped(part).sum() * part.target.shape[1] for part in batch]
        events = sum(part.target.numel() for part in batch)
        return {"loss": torch.stack(sums).sum() / events}


def one_event_each(
    events: CategoryEvents, count: int, rng: np.random.Generator, tilt: float = 0.0
) -> IntArray:
    """Numbers of ``count`` events of different shoppers, in random order.

    Args:
        events: of the category.
        count: how many.
        rng: of the draw.
        tilt: how far some products are favoured, others with each call.

    Raises:
        TrainingError: there are fewer shoppers.
    """
    if tilt:
        order = tilted_order(events.target, len(events.items), tilt, rng)
    else:
        order = rng.permutation(len(events))
    _, first = np.unique(events.shopper[order], return_index=True)
    if len(first) < count:
        raise TrainingError(
            f"{count} events of different shoppers asked for, the category has {len(first)}: "
            "ask for fewer"
        )
    return order[np.sort(first)[:count]]


def _stack(parts: Sequence[Events]) -> Events:
    return Events(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))
