"""From a classifier's logits to statements with a probability that can be trusted.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017):

    p = softmax(z / T),   T minimises - Σ log p[target] over rows not learned from
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from newshelf.knowledge.facts import Fact

__all__ = ["UNLABELLED", "HeadReading", "fit_temperature", "head_facts"]

_HOTTEST = 20.0
UNLABELLED = -1


@dataclass(frozen=True)
class HeadReading:
    """What one head of the encoder says of a catalogue's ``N`` products."""

    attribute: str
    """``color``, ``material`` or ``product_type``."""
    classes: Sequence[str]
    logits: NDArray[np.float32]
    """``(N, len(classes))``."""
    held_out: NDArray[np.int64]
    """``(N,)``: the right class of products that the head did not learn from, -1 elsewhere.
    The temperature is fitted on them; without any, it is 1."""
    speaks_of: NDArray[np.bool_]
    """``(N,)``: the products that the head was made for. A head knows no other class than
    its own, and would name one for any product."""

    def __post_init__(self) -> None:
        rows, width = self.logits.shape
        if width != len(self.classes) or len(self.held_out) != rows or len(self.speaks_of) != rows:
            raise ValueError(
                f"the head {self.attribute}: logits {self.logits.shape} for {len(self.classes)} "
                f"classes, {len(self.held_out)} targets and {len(self.speaks_of)} products"
            )
        if not np.isfinite(self.logits).all():
            raise ValueError(f"the head {self.attribute} has logits that are not finite")


def fit_temperature(logits: NDArray[np.float32], target: NDArray[np.int64]) -> float:
    """The temperature that makes the probabilities fit.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``, -1 for rows to leave out.

    Returns:
        Between 1/20 and 20; 1 when there is no row to fit.
    """
    rows = target != UNLABELLED
    if not rows.any():
        return 1.0
    scores, right = logits[rows].astype(np.float64), target[rows]

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(log_p[np.arange(len(right)), right].mean())

    bound = float(np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def head_facts(ids: Sequence[str], reading: HeadReading, least: float) -> Iterator[Fact]:
    """The likeliest class of each product, where its probability is at least ``least``."""
    temperature = fit_temperature(reading.logits, reading.held_out)
    probability = softmax(reading.logits.astype(np.float64) / temperature, axis=1)
    best = probability.argmax(axis=1)
    for row in np.flatnonzero(reading.speaks_of).tolist():
        confidence = float(probability[row, best[row]])
        if confidence >= least:
            value = reading.classes[best[row]]
            yield Fact(ids[row], reading.attribute, value, "picture+text model", confidence)
