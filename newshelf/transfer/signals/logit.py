r"""The weights of the signals: a conditional logit over the shelf.

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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.errors import TrainingError

__all__ = ["calibrate", "fit_weights"]

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
