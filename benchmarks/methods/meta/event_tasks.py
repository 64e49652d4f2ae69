"""Tasks of meta-learning from events: each adapts a scorer to a category."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from benchmarks.methods.meta.maml import Predict
from newshelf.catalog.interactions import Sequences, latest
from newshelf.errors import TrainingError
from newshelf.evaluation.types import BoolArray, IntArray
from newshelf.nn.scorer import SiameseScorer
from newshelf.training.loop import Batches, Objective

# Events of one category, each with the shopper's history from before and from elsewhere.
#
# The question a new category puts: these shoppers are known from other categories, which of
# the new category's products fits them? A task of its own for every category.


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
    shoppers: Sequences, inside: BoolArray, known: BoolArray, *, max_history: int
) -> CategoryEvents:
    """Collect the events of a category from shoppers' sequences.

    Args:
        shoppers: catalogue rows that each of them took, oldest first, and when. Only what was
            taken in an earlier second is a history, so never the rest of the same order.
        inside: ``(N,)`` True for the category's products.
        known: ``(N,)`` True for the products that histories may hold, none of the category's.
        max_history: H.

    Raises:
        TrainingError: no event is left.
    """
    items = np.flatnonzero(inside)
    place = np.full(len(inside), -1)
    place[items] = np.arange(len(items))
    target, shopper, histories = [], [], []
    taken = np.zeros((len(shoppers.sequences), len(items)), dtype=np.bool_)
    pairs = zip(shoppers.sequences, shoppers.timestamps or (), strict=True)
    for number, (sequence, times) in enumerate(pairs):
        within = inside[sequence]
        if not within.any():
            continue
        taken[number, place[sequence[within]]] = True
        outside = known[sequence]
        rows, at = sequence[outside], times[outside]
        # The first time only: whether it is taken again needs no recommendation.
        _, first = np.unique(sequence, return_index=True)
        for position in np.sort(first[within[first]]):
            history = latest(rows[: np.searchsorted(at, times[position])])[-max_history:]
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


# Tasks whose popular products differ: an augmentation against memorised categories.
#
# A start that has learned the categories of meta-training knows what is popular in each of them
# before its first inner step. The support then tells it nothing, the learned rates shrink, and
# in a category that it does not know it adapts too little (Yin et al., 2020, "Meta-Learning
# without Memorization"). What helps is to make the answer depend on more than the category
# (Rajendran et al., 2020, "Meta-Learning Requires Meta-Augmentation"). Here each task draws
# weights of the category's products, and its support and queries favour the same ones::
#
#     w_p = exp(tilt · n_p),  n_p ~ N(0, 1)        P(event) ∝ w_(its product)
#
# Events are drawn without replacement (Efraimidis and Spirakis, 2006, in the form of Gumbel):
# descending ``log w + g``, ``g ~ Gumbel(0, 1)``. Which products fit which histories stays as it
# was; only how often each of them is taken is a matter of the task.


def tilted_order(
    target: IntArray, products: int, tilt: float, rng: np.random.Generator
) -> IntArray:
    """All events in the order in which a task with weights of its own draws them.

    Args:
        target: ``(E,)`` which product each event took.
        products: how many there are.
        tilt: standard deviation of the logarithm of a product's weight; 0 draws all events
            alike.
        rng: of the task's weights and of the draw.

    Returns:
        ``(E,)`` numbers of the events, the first drawn first.
    """
    log_weight = tilt * rng.standard_normal(products)
    return np.argsort(-(log_weight[target] + rng.gumbel(size=len(target))))


# Adapting the Siamese scorer to a category from a few events.
#
# The support of a task are k events of its category, the queries events of other shoppers.
# The loss of an event with history ``H`` and product ``p`` is InfoNCE over the category's
# products, without those that the shopper took at another time::
#
#     loss = -log  exp(s(H,p)) / Σ_{c in category} exp(s(H,c))
#
# A product that nobody took yet is a negative like any other: the k events say which of a
# new shelf's products go with which histories, and that is all there is to learn from.


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
    """
    chosen = np.arange(len(events.items)) if candidates is None else candidates
    place = np.full(len(events.items), -1)
    place[chosen] = np.arange(len(chosen))
    target = place[events.target[numbers]]
    left_out = events.taken[numbers][:, chosen].copy()
    left_out[np.arange(len(numbers)), target] = False
    return Events(
        embeddings[torch.from_numpy(events.history[numbers])],
        torch.from_numpy(events.mask[numbers]),
        embeddings[torch.from_numpy(events.items[chosen])],
        torch.from_numpy(target),
        torch.from_numpy(left_out),
    )


@dataclass(frozen=True)
class EventTasks:
    """Draws tasks from the events of categories."""

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
    :mod:`benchmarks.methods.meta.event_tasks`. Joint training wants 0."""

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
