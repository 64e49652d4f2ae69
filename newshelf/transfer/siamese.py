"""The Siamese scorer, trained contrastively on what people took together.

For a shopper's history ``H``, the item ``p`` taken next, and negatives ``N`` (InfoNCE,
van den Oord et al., 2018, with the sampling correction of Yi et al., 2019)::

    loss = -log  exp(s(H,p)) / (exp(s(H,p)) + Σ_{n∈N} exp(s(H,n) - log q(n)))

``N`` are the other positives of the batch and a uniform draw; ``q(n)`` is how often an
item is expected among them, so that popular items are not punished for being drawn often.
Only items with a training interaction are ever negatives: a new item is not known to be
disliked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from newshelf.config import ScorerSettings
from newshelf.errors import TrainingError
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec

__all__ = ["ScorerResult", "score_all", "train_scorer"]

IntArray = npt.NDArray[np.int64]

_UNIFORM_NEGATIVES = 256


@dataclass(frozen=True)
class ScorerResult:
    """The trained scorer and the mean loss of each epoch."""

    scorer: SiameseScorer
    losses: list[float]


def train_scorer(
    embeddings: Tensor,
    sequences: Sequence[IntArray],
    *,
    ordered: bool,
    settings: ScorerSettings,
    seed: int,
    console: Console,
) -> ScorerResult:
    """Train on the frozen ``embeddings (N, 512)``.

    Args:
        embeddings: of the whole catalogue, unit length.
        sequences: rows of ``embeddings`` that went together: one array per shopper
            (oldest first) or per basket.
        ordered: whether only what came before is a history (shoppers), or everything
            else is (baskets).
        settings: width, epochs, learning rate and so on.
        seed: of batches, negatives, initialisation and dropout.
        console: where the progress is shown.

    Raises:
        TrainingError: no sequence has two different items, or the loss diverges.
    """
    torch.manual_seed(seed)
    sampler = _Sampler(sequences, len(embeddings), ordered, settings, seed)
    spec = ScorerSpec(width=settings.width, max_history=settings.max_history)
    scorer = SiameseScorer(spec, embeddings.shape[1], settings.temperature)
    optimizer = torch.optim.AdamW(
        scorer.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = sampler.steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.epochs * steps
    )
    losses = []
    scorer.train()
    for _ in track(range(settings.epochs), "training the Siamese scorer", console=console):
        total = 0.0
        for _ in range(steps):
            optimizer.zero_grad()
            loss = _loss(scorer, embeddings, sampler.batch())
            if not torch.isfinite(loss):
                raise TrainingError(f"the scorer's loss became {loss.item()}")
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
    return ScorerResult(scorer.eval(), losses)


@torch.inference_mode()
def score_all(
    scorer: SiameseScorer, embeddings: Tensor, histories: Sequence[IntArray]
) -> npt.NDArray[np.float32]:
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
    log_q: Tensor
    forbidden: Tensor
    """``(B, C)`` bool: a candidate that the row's own shopper took."""


class _Sampler:
    """Draws (history, next item, negatives) from the sequences."""

    def __init__(
        self,
        sequences: Sequence[IntArray],
        items: int,
        ordered: bool,
        settings: ScorerSettings,
        seed: int,
    ) -> None:
        self._sequences = [s for s in sequences if len(np.unique(s)) > 1]
        if not self._sequences:
            raise TrainingError(
                "no shopper or basket has two different products: the scorer cannot learn"
            )
        self._ordered = ordered
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._places = [
            (number, place)
            for number, sequence in enumerate(self._sequences)
            for place in range(1 if ordered else 0, len(sequence))
        ]
        self._batches = -(-len(self._places) // settings.batch_size)
        counts = np.bincount(np.concatenate(self._sequences), minlength=items)
        self._known = np.flatnonzero(counts)
        uniform = _UNIFORM_NEGATIVES / len(self._known)
        size = len(self._places) / self._batches
        expected = size * counts / counts.sum() + uniform
        with np.errstate(divide="ignore"):
            self._log_q = torch.from_numpy(np.log(expected)).float()
        self._taken = [frozenset(sequence.tolist()) for sequence in self._sequences]
        self._order: list[IntArray] = []

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every place was seen once, or an epoch's share of ``max_steps``."""
        return max(1, min(self._batches, self._settings.max_steps // self._settings.epochs))

    def batch(self) -> _Batch:
        """The next batch."""
        picked = [self._places[i] for i in self._next()]
        target = torch.tensor([int(self._sequences[n][place]) for n, place in picked])
        history, mask = _pad([torch.from_numpy(self._history(n, place)) for n, place in picked])
        uniform = self._rng.choice(self._known, _UNIFORM_NEGATIVES)
        negatives = torch.unique(torch.cat([target, torch.from_numpy(uniform)]))
        forbidden = self._forbidden([n for n, _ in picked], negatives)
        return _Batch(history, mask, target, negatives, self._log_q[negatives], forbidden)

    def _next(self) -> list[int]:
        if not self._order:
            # Of equal size, so that each place counts as much as any other.
            shuffled = self._rng.permutation(len(self._places))
            self._order = np.array_split(shuffled, self._batches)
        batch: list[int] = self._order.pop().tolist()
        return batch

    def _history(self, number: int, place: int) -> IntArray:
        sequence = self._sequences[number]
        longest = self._settings.max_history
        if self._ordered:
            return sequence[max(0, place - longest) : place]
        others = np.delete(sequence, place)
        return self._rng.permutation(others)[:longest]

    def _forbidden(self, numbers: list[int], negatives: Tensor) -> Tensor:
        columns = {item: column for column, item in enumerate(negatives.tolist())}
        mask = torch.zeros(len(numbers), len(negatives), dtype=torch.bool)
        for row, number in enumerate(numbers):
            found = [columns[item] for item in self._taken[number] if item in columns]
            mask[row, found] = True
        return mask


def _loss(scorer: SiameseScorer, embeddings: Tensor, batch: _Batch) -> Tensor:
    used, places = torch.unique(
        torch.cat([batch.history.flatten(), batch.negatives]), return_inverse=True
    )
    # Every item is projected once, however many rows it is in.
    vectors = scorer.project(embeddings[used])
    split = batch.history.numel()
    history = vectors[places[:split]].view(*batch.history.shape, -1)
    candidates = vectors[places[split:]].expand(len(batch.target), -1, -1)
    scores, _ = scorer.score(history, batch.mask, candidates)
    column = torch.searchsorted(batch.negatives, batch.target).unsqueeze(1)
    positive = scores.gather(1, column)
    corrected = (scores - batch.log_q).masked_fill(batch.forbidden, float("-inf"))
    logits = torch.cat([positive, corrected], dim=1)
    loss: Tensor = (logits.logsumexp(dim=1) - positive.squeeze(1)).mean()
    return loss


def _pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``(B, longest)`` int64, padded with 0, and its bool mask."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
