r"""Every signal of a catalogue, the fit of their weights, and the blend that is served.

The weights of the signals: a conditional logit over the shelf.

::

    P(c | h) = exp(w · x(h, c)) / Σ_{a ∈ shelf \ h} exp(w · x(h, a))
    max_w  mean over cases  1/|relevant| Σ_{c ∈ relevant} log P(c | h)  -  ||w||² / cases

McFadden, "Conditional logit analysis of qualitative choice behavior", 1974. ``x`` are the
signals, each standardised while fitting; the last term is a normal prior on their weights,
so that few cases move them little. On a large shelf the sum runs over the relevant
items and a uniform draw of the others, whose terms are multiplied by what the draw left out:
an estimate of the whole sum by importance sampling (Bengio & Senécal, AISTATS 2003).

The scale is then set so that a score is the log-odds of the item being taken (Platt, 1999).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from newshelf.config import BlendSettings
from newshelf.errors import TrainingError
from newshelf.evaluation.types import Case
from newshelf.nn.blend import LINKS, Blend, content_signal
from newshelf.nn.spec import BlendSpec
from newshelf.training.signals import Taken, content_neighbours, direct_links, popularity_features

FloatArray = npt.NDArray[np.float32]

_PRIOR = 1.0
_STEPS = 60
_SAME = 1e-5


def fit_weights(
    signals: FloatArray,
    relevant: npt.NDArray[np.bool_],
    ranked: npt.NDArray[np.bool_],
    correction: FloatArray,
) -> FloatArray:
    """The signals' weights.

    Args:
        signals: ``(cases, C, S)``, finite.
        relevant: ``(cases, C)``: what was taken; each case has one at least.
        ranked: ``(cases, C)``: what could have been taken.
        correction: ``(cases, C)`` or broadcastable: added to the logits, the logarithm of
            how many items one drawn item stands for.

    Returns:
        ``(S,)`` float32, for the signals as they are given.

    Raises:
        TrainingError: no case, or a signal that is not finite.
    """
    if not len(signals):
        raise TrainingError("no case to fit the signals' weights on")
    if not np.isfinite(signals).all():
        raise TrainingError("a signal is not finite")
    x = torch.from_numpy(signals)
    mean, scale = x.mean(dim=(0, 1)), x.std(dim=(0, 1))
    # A signal that is the same for all tells nothing: divided by infinity, its weight is 0.
    scale = scale.masked_fill(scale <= _SAME * mean.abs(), math.inf)
    # What is added to all items alike changes no probability, but costs float32 its digits.
    x = (x - mean).div_(scale)
    share = torch.from_numpy(relevant / relevant.sum(axis=1, keepdims=True)).float()
    closed = ~torch.from_numpy(ranked)
    offset = torch.from_numpy(correction)
    weights = torch.zeros(x.shape[2], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = (x @ weights + offset).masked_fill(closed, -1e9)
        # The line search compares losses that differ by less than float32 can tell.
        loss = -(share * logits.log_softmax(dim=1, dtype=torch.float64)).sum(dim=1).mean()
        loss = loss + _PRIOR / len(x) * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted: FloatArray = (weights.detach() / scale).numpy()
    return fitted


def calibrate(
    scores: Sequence[FloatArray],
    taken: Sequence[npt.NDArray[np.bool_]],
    counts: Sequence[FloatArray],
) -> tuple[float, float]:
    """Slope > 0 and intercept that turn scores into log-odds of being taken.

    Args:
        scores: per case, ``(C,)``.
        taken: per case, ``(C,)``.
        counts: per case, ``(C,)``: how many items an entry stands for.

    Returns:
        ``(slope, intercept)`` of the logistic regression of ``taken`` on ``scores``.
    """
    x = torch.from_numpy(np.concatenate(scores)).double()
    y = torch.from_numpy(np.concatenate(taken)).double()
    counted = torch.from_numpy(np.concatenate(counts)).double()
    mean, deviation = x.mean(), x.std().clamp(min=1e-9)
    base = torch.log((y * counted).sum() / ((1 - y) * counted).sum())
    parameters = torch.stack([torch.zeros_like(base), base]).requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = parameters[0].exp() * (x - mean) / deviation + parameters[1]
        losses = F.binary_cross_entropy_with_logits(logits, y, weight=counted, reduction="sum")
        loss: Tensor = losses / counted.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    log_scale, offset = parameters.detach().tolist()
    slope = math.exp(log_scale) / float(deviation)
    return slope, offset - slope * float(mean)


IntArray = npt.NDArray[np.int64]

MIN_CASES = 30
"""Fewer cases say too little about a dozen weights."""
_MAX_ITEMS = 4096
"""Items over which the likelihood is summed; of a larger shelf, a uniform draw."""
_CASES_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Signals:
    """The signals from behaviour and content, before they are weighted."""

    links: sparse.csr_array
    """``(N, N)`` float32: what was taken together."""
    neighbours: sparse.csr_array
    """``(N, N)`` float32: similarity, each row's sum 1."""
    unpersonal: dict[str, FloatArray]
    """``(N,)`` float32 each."""
    embeddings: FloatArray
    """``(N, D)`` of unit length."""
    temperature: float

    def weighed(self, weights: dict[str, float], intercept: float = 0.0) -> Blend:
        """The blend under these weights, by signal."""
        prior = np.full(len(self.embeddings), intercept, dtype=np.float32)
        for name, feature in self.unpersonal.items():
            prior += np.float32(weights[name]) * feature
        kept = {name: weights[name] for name in ("siamese", "content", *LINKS)}
        spec = BlendSpec(weights=kept, temperature=self.temperature)
        return Blend(spec, self.links, self.neighbours, prior)

    @property
    def names(self) -> tuple[str, ...]:
        """All signals, in the order of :meth:`table`'s last axis."""
        return ("siamese", "content", *LINKS, *self.unpersonal)

    def table(
        self, histories: Sequence[IntArray], siamese: FloatArray, columns: IntArray
    ) -> FloatArray:
        """``(B, C, S)`` float32: every signal for some items.

        Args:
            histories: B arrays of item rows, none empty.
            siamese: ``(B, N)``.
            columns: ``(C,)`` item rows.
        """
        blank = self.weighed(dict.fromkeys(self.names, 0.0))
        rows = []
        for start in range(0, len(histories), _CASES_AT_ONCE):
            part = histories[start : start + _CASES_AT_ONCE]
            linked = blank.links_signals(blank.linked(blank.history(part)))
            content = np.stack([self._content(history, columns) for history in part])
            personal = [siamese[start : start + len(part), columns], content]
            personal += [linked[name][:, columns] for name in LINKS]
            shared = [
                np.broadcast_to(feature[columns], content.shape)
                for feature in self.unpersonal.values()
            ]
            rows.append(np.stack([*personal, *shared], axis=2))
        return np.concatenate(rows)

    def _content(self, history: IntArray, columns: IntArray) -> FloatArray:
        cosines = self.embeddings[history] @ self.embeddings[columns].T
        return content_signal(cosines, self.temperature)


def make_signals(
    embeddings: Tensor,
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray] | None,
    settings: BlendSettings,
) -> Signals:
    """From the training interactions alone.

    Args:
        embeddings: ``(N, D)`` float32 of unit length.
        sequences: item rows; one array per shopper or basket.
        timestamps: epoch seconds, parallel; None for baskets.
        settings: ridge, half-life and sizes.
    """
    neighbours = content_neighbours(embeddings)
    taken = Taken.of(sequences, timestamps, len(embeddings), settings.half_life_days)
    return Signals(
        links=direct_links(
            taken,
            ridge=settings.ridge,
            max_items=settings.linked_items,
            per_item=settings.links_per_item,
        ),
        neighbours=neighbours,
        unpersonal=popularity_features(sequences, timestamps, neighbours),
        embeddings=embeddings.numpy(),
        temperature=BlendSpec(weights={}).temperature,
    )


def fit_blend(
    signals: Signals,
    cases: Sequence[Case],
    siamese: FloatArray,
    met: IntArray,
    generator: np.random.Generator,
) -> tuple[dict[str, float], float]:
    """Weights by signal, and the intercept, on the scale of log-odds.

    An item that nobody ever met is not known to be disliked, so it is no alternative: else
    the weights would learn that what is new is not taken. Those that stand for the new ones
    are the items that lost their behaviour.

    Args:
        signals: made without the cases.
        cases: at least :data:`MIN_CASES`.
        siamese: ``(cases, N)``, of a scorer trained without the cases.
        met: rows of the items with an interaction in the training, cases included.
        generator: draws the items that the likelihood is summed over.

    Raises:
        TrainingError: see ``newshelf.training.signal_weights``.
    """
    columns, stands_for = _columns(cases, met, generator)
    table = signals.table([case.history for case in cases], siamese, columns)
    relevant = np.stack([np.isin(columns, case.relevant) for case in cases])
    ranked = np.stack([~np.isin(columns, case.history) for case in cases])
    correction = np.where(relevant, 0, np.log(stands_for)).astype(np.float32)
    weights = fit_weights(table, relevant, ranked, correction)
    scores = table @ weights
    counted = np.where(relevant, 1, stands_for)
    slope, intercept = calibrate(
        [row[keep] for row, keep in zip(scores, ranked, strict=True)],
        [row[keep] for row, keep in zip(relevant, ranked, strict=True)],
        [row[keep] for row, keep in zip(counted, ranked, strict=True)],
    )
    fitted = zip(signals.names, (slope * weights).tolist(), strict=True)
    return dict(fitted), intercept


def _columns(
    cases: Sequence[Case], met: IntArray, generator: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """The items that are summed over, and how many others each stands for."""
    if len(met) <= _MAX_ITEMS:
        return met, np.ones(len(met), dtype=np.float32)
    wanted = np.unique(np.concatenate([case.relevant for case in cases]))
    others = np.setdiff1d(met, wanted)
    drawn = generator.choice(others, min(len(others), _MAX_ITEMS), replace=False)
    columns = np.concatenate([wanted, drawn])
    stands_for = np.ones(len(columns), dtype=np.float32)
    stands_for[len(wanted) :] = len(others) / max(1, len(drawn))
    return columns, stands_for
