"""Position bias: how much less shoppers look at the later positions of an answer.

An answer with exploration has one pair of neighbouring products, at positions k and k + 1, in an
order drawn by chance (RandPair: Wang et al., WSDM 2018). Whatever the products are, each is as
often first, so only examination makes their events more frequent at k. With an examination that
falls as k^-η (Joachims et al., WSDM 2017)::

    logit P(an event of the pair is at k + 1) = -η · log((k + 1) / k)

The inverse propensity of examination, k^η, weighs an event up to a limit, which bounds the variance
and the error of the curve far from where it was observed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import norm

from newshelf.errors import EvidenceError
from newshelf.evaluation.types import BoolArray, IntArray

LEAST_EVENTS = 100
"""Events of explored pairs below which nothing is estimated."""
_ALPHA = 0.05
_STEPS = 50


@dataclass(frozen=True)
class PositionBias:
    """The exponent η, with an interval clustered by shopper."""

    exponent: float
    low: float
    high: float
    events: int

    def weights(self, positions: IntArray, most: float) -> npt.NDArray[np.float64]:
        """Return ``(events,)`` with a mean of 1: the inverse examination, ``most`` at most."""
        inverse = np.minimum(positions.astype(np.float64) ** self.exponent, most)
        weights: npt.NDArray[np.float64] = inverse / inverse.mean()
        return weights


def fit_position_bias(
    positions: IntArray, is_later: BoolArray, units: Sequence[str]
) -> PositionBias:
    """Estimate from the events of explored pairs, ``(events,)`` each.

    ``positions`` are the pairs' first positions k; ``is_later`` tells an event at k + 1. Raises
    ``EvidenceError`` with too few events, or if they show no bias.
    """
    if len(positions) < LEAST_EVENTS:
        raise EvidenceError(
            f"{len(positions)} events of explored pairs are too few (at least {LEAST_EVENTS}): "
            "set [gateway] explore_share"
        )
    step = -np.log((positions + 1) / positions)
    exponent = 0.0
    for _ in range(_STEPS):
        chance = expit(exponent * step)
        slopes = step * (is_later - chance)
        curvature = (step**2 * chance * (1 - chance)).sum()
        exponent = float(np.clip(exponent + slopes.sum() / curvature, -4, 4))
    _, unit = np.unique(np.array(units, dtype=object), return_inverse=True)
    error = np.sqrt((np.bincount(unit, weights=slopes) ** 2).sum()) / curvature
    low, high = (exponent + sign * norm.ppf(1 - _ALPHA / 2) * error for sign in (-1, 1))
    if low <= 0:
        raise EvidenceError(
            f"{len(positions)} events of explored pairs show no bias: the exponent is between "
            f"{low:.2f} and {high:.2f}"
        )
    return PositionBias(exponent, float(low), float(high), len(positions))
