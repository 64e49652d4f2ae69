"""Contrastive training of the Siamese scorer on shoppers' sequences or baskets.

For a shopper's history ``H``, the next item ``p`` and a set of negatives ``N`` (InfoNCE, van den
Oord et al., 2018)::

    loss = -log  exp(s(H,p)) / (exp(s(H,p)) + Σ_{n∈N} exp(s(H,n) - log π(n)))
    π(n) = 1 - Π(1 - p(n))    over the draws of the batch

``N`` has the other positives of the batch, a uniform sample, and hard negatives: items similar to
the positives. An item counts once however often it is drawn, so each is weighted by the inverse
of its inclusion probability ``π`` (Horvitz & Thompson, 1952): the sum's expectation is that over
all items without an interaction of the shopper. The expected count, which corrects a sum over
draws (Bengio & Senécal, 2008; Yi et al., 2019), would remove popular items from a sum over a set.
Negatives are always items with a training interaction: nothing is known about new ones.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.catalog.interactions import Sequences
from newshelf.config import ScorerSettings
from newshelf.errors import TrainingError
from newshelf.evaluation.baselines import incidence
from newshelf.evaluation.types import FloatArray, IntArray
from newshelf.nn.numpy_scorer import SAFE_EXPONENT
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training.loop import Objective, fit
from newshelf.training.run import Run

_UNIFORM_NEGATIVES = 256
_HARD_AMONG = 50
"""Number of a positive's nearest items from which hard negatives are drawn."""


def train_scorer(
    embeddings: Tensor,
    data: Sequences,
    settings: ScorerSettings,
    run: Run,
    *,
    name: str = "scorer",
    start: SiameseScorer | None = None,
) -> tuple[SiameseScorer, list[float]]:
    """Train on the frozen ``embeddings (N, 512)``; return the scorer and its loss by epoch.

    It starts from ``start``'s weights if they fit. ``embeddings`` are those of the whole catalogue,
    of unit length. A history is what came before with timestamps, as those of shoppers, and
    everything else in baskets. Weights multiply the loss of their places' targets.

    Raises:
        TrainingError: no sequence has two different items, or the loss diverges.
    """
    torch.manual_seed(run.seed)
    sampler = _Sampler(data, embeddings, settings)
    spec = ScorerSpec(width=settings.width, max_history=settings.max_history)
    objective = _Contrast(
        SiameseScorer(spec, embeddings.shape[1], settings.temperature), embeddings
    )
    if start is not None and start.spec == spec:
        objective.scorer.load_state_dict(start.state_dict())
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.epochs * sampler.steps_per_epoch
    )
    history = fit(
        name, objective, sampler.batches, optimizer, run,
        epochs=settings.epochs, schedule=schedule,
    )  # fmt: skip
    return objective.scorer, history.loss


@torch.inference_mode()
def score_all(
    scorer: SiameseScorer, embeddings: Tensor, histories: Sequence[IntArray]
) -> FloatArray:
    """Score the whole catalogue: ``(len(histories), N)`` float32, higher is better."""
    vectors = scorer.project(embeddings)
    rows = []
    for start in range(0, len(histories), 64):
        part = [torch.from_numpy(h[-scorer.spec.max_history :]) for h in histories[start:][:64]]
        history, mask = _pad(part)
        candidates = vectors.expand(len(part), -1, -1)
        scores, _ = scorer.score(vectors[history], mask, candidates)
        rows.append(scores.numpy())
    return np.concatenate(rows)


@dataclass(frozen=True)
class _Batch:
    """``history (B, H)`` rows with ``mask``, ``target (B,)``, ``negatives (C,)``."""

    history: Tensor
    mask: Tensor
    target: Tensor
    negatives: Tensor
    log_inclusion: Tensor
    """``(B, C)``: log probability that a batch with the row's own place has the candidate."""
    masked: Tensor
    """``(B, C)`` bool: candidates in the row's own sequence."""
    weight: Tensor
    """``(B,)``: of the targets."""


class _Contrast(Objective):
    """InfoNCE of the module's formula."""

    def __init__(self, scorer: SiameseScorer, embeddings: Tensor) -> None:
        super().__init__()
        self.scorer = scorer
        # Not saved with the progress, because it is large.
        self.register_buffer("embeddings", embeddings, persistent=False)

    def forward(self, batch: _Batch) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return {"loss": _loss(self.scorer, cast(Tensor, self.embeddings), batch)}


class _Sampler:
    """Samples (history, next item, negatives) from the sequences."""

    def __init__(self, data: Sequences, embeddings: Tensor, settings: ScorerSettings) -> None:
        useful = [len(np.unique(sequence)) > 1 for sequence in data.sequences]
        self._sequences = list(compress(data.sequences, useful))
        ones = (np.ones(len(sequence)) for sequence in data.sequences)
        self._weights = list(compress(ones if data.weights is None else data.weights, useful))
        if not self._sequences:
            raise TrainingError(
                "no shopper or basket has two different products: the scorer cannot learn"
            )
        self._ordered = data.timestamps is not None
        self._settings = settings
        self._places = [
            (number, place)
            for number, sequence in enumerate(self._sequences)
            for place in range(1 if self._ordered else 0, len(sequence))
        ]
        self._batches = -(-len(self._places) // settings.batch_size)
        self._known = np.unique(np.concatenate(self._sequences))
        # Without hard negatives the nearest items have no weight.
        hard = settings.hard_negatives
        self._hard = _nearest(embeddings, self._known) if hard else self._known[:, None]
        targets = [self._sequences[number][place] for number, place in self._places]
        # For each item, the number of places with it as target, or among their target's nearest.
        self._targets = np.bincount(targets, minlength=len(embeddings))
        self._near_targets = np.zeros(len(embeddings))
        np.add.at(self._near_targets, self._hard, self._targets[self._known, None])
        self._taken = incidence(self._sequences, len(embeddings))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over all places, or an epoch's share of ``max_steps``."""
        return max(1, min(self._batches, self._settings.max_steps // self._settings.epochs))

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[_Batch]:
        """Yield an epoch's batches; over the epochs, all places are used about equally often."""
        rng = np.random.default_rng(generator.initial_seed())
        # The number of complete passes over all places before the epoch.
        cycle = epoch * self.steps_per_epoch // self._batches
        shuffled = np.random.default_rng(cycle).permutation(len(self._places))
        # Of equal size, so that all places have equal weight.
        parts = np.array_split(shuffled, self._batches)
        first = epoch * self.steps_per_epoch % self._batches
        for number in range(first, first + self.steps_per_epoch):
            yield self._batch(parts[number % self._batches], rng)

    def _batch(self, numbers: IntArray, rng: np.random.Generator) -> _Batch:
        picked = [self._places[number] for number in numbers]
        target = torch.tensor([int(self._sequences[n][place]) for n, place in picked])
        rows = [torch.from_numpy(self._history(n, place, rng)) for n, place in picked]
        history, mask = _pad(rows)
        nearest = self._hard[np.searchsorted(self._known, target.numpy())]
        uniform = rng.choice(self._known, _UNIFORM_NEGATIVES)
        columns = rng.integers(nearest.shape[1], size=(len(nearest), self._settings.hard_negatives))
        hard = np.take_along_axis(nearest, columns, axis=1).ravel()
        negatives = torch.unique(torch.cat([target, *map(torch.from_numpy, (uniform, hard))]))
        taken = self._taken[[n for n, _ in picked]][:, negatives.numpy()]
        masked = torch.from_numpy(taken.toarray() > 0)
        log_inclusion = self._log_inclusion(torch.from_numpy(nearest), negatives)
        weight = torch.tensor([float(self._weights[n][place]) for n, place in picked])
        return _Batch(history, mask, target, negatives, log_inclusion, masked, weight)

    def _log_inclusion(self, nearest: Tensor, negatives: Tensor) -> Tensor:
        """``(B, C)`` float32: log π of ``negatives (C,)`` for rows with ``nearest (B, m)``.

        ::

            1 - π = C(P-t, D) / C(P, D) · (1 - 1/K)^U · (1 - h)^own · E[(1 - h)^X]
            E[(1 - h)^X] ≈ min((1 - h·D/(P-t))^w, (1 - h·w/(P-t))^D)

        ``P`` and ``D`` are the places of the epoch and of the batch without the row's own,
        ``t`` those with the item as target, ``w`` those with it among the ``m`` nearest of
        their target (``X`` of them drawn), ``own`` 1 if it is among those of the row's target,
        ``h = 1 - (1 - 1/m)^hard_negatives``. Both bounds of the hypergeometric ``X`` are
        binomial (Hoeffding, 1963); for ``h = 0`` all is exact.
        """
        columns = torch.searchsorted(negatives, nearest).clamp(max=len(negatives) - 1)
        own = torch.zeros(len(nearest), len(negatives), dtype=torch.float64)
        own.scatter_add_(1, columns, (negatives[columns] == nearest).double())
        places, drawn = len(self._places) - 1, len(nearest) - 1
        targets = torch.from_numpy(self._targets)[negatives].double().clamp(max=places)
        left = torch.lgamma(places - targets + 1) - torch.lgamma(places - targets - drawn + 1)
        every = math.lgamma(places + 1) - math.lgamma(places - drawn + 1)
        missed = left - every + _UNIFORM_NEGATIVES * math.log1p(-1 / len(self._known))
        hit = 1 - (1 - 1 / nearest.shape[1]) ** self._settings.hard_negatives
        near = torch.from_numpy(self._near_targets)[negatives] - own
        places_left = (places - targets).clamp(min=1)
        by_place = torch.special.xlog1py(near, -hit * (drawn / places_left).clamp(max=1))
        by_draw = drawn * torch.log1p(-hit * (near / places_left).clamp(max=1))
        missed = missed + torch.minimum(by_place, by_draw)
        missed = missed + torch.special.xlog1py(own, torch.full_like(own, -hit))
        return (-torch.expm1(missed)).log().float()

    def _history(self, number: int, place: int, rng: np.random.Generator) -> IntArray:
        sequence = self._sequences[number]
        longest = self._settings.max_history
        if self._ordered:
            return sequence[max(0, place - longest) : place]
        others = np.delete(sequence, place)
        return rng.permutation(others)[:longest]


def _loss(scorer: SiameseScorer, embeddings: Tensor, batch: _Batch) -> Tensor:
    used, places = torch.unique(
        torch.cat([batch.history.flatten(), batch.negatives]), return_inverse=True
    )
    # Each item is projected once, and meets each candidate once, whatever the number of its rows.
    vectors = scorer.project(embeddings[used])
    history, candidates = places.split([batch.history.numel(), len(batch.negatives)])
    similarity = vectors @ vectors[candidates].T
    # Cosines need no maximum subtracted.
    sharpness = scorer.score.log_sharpness.exp().clamp(max=SAFE_EXPONENT)
    attention = (similarity * sharpness).exp()
    # Sums over a history are sums of its items' rows.
    lengths = batch.mask.sum(dim=1)
    total, attended, every = F.embedding_bag(
        history[batch.mask.flatten()],
        torch.cat([attention, attention * similarity, similarity], dim=1),
        lengths.cumsum(dim=0) - lengths,
        mode="sum",
    ).chunk(3, dim=1)
    scores = scorer.score.pooled(attended / total, every / lengths.unsqueeze(1))
    column = torch.searchsorted(batch.negatives, batch.target).unsqueeze(1)
    positive = scores.gather(1, column)
    corrected = (scores - batch.log_inclusion).masked_fill(batch.masked, float("-inf"))
    logits = torch.cat([positive, corrected], dim=1)
    loss: Tensor = logits.logsumexp(dim=1) - positive.squeeze(1)
    return (batch.weight * loss).mean()


def _nearest(embeddings: Tensor, known: IntArray) -> IntArray:
    """``(known, m)``: the known items nearest to each known item."""
    among = embeddings[torch.from_numpy(known)]
    count = min(_HARD_AMONG, len(known) - 1)
    rows = []
    for start in range(0, len(known), 2048):
        part = among[start : start + 2048] @ among.T
        part[torch.arange(len(part)), start + torch.arange(len(part))] = -1
        rows.append(part.topk(count, dim=1).indices)
    nearest: IntArray = known[torch.cat(rows).numpy()]
    return nearest


def _pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return ``(B, longest)`` int64, padded with 0, and its bool mask."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
