"""What came of a rollout so far, as the analysis needs it and the store sums it up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_LATENCIES", "Observation", "UnitTotals", "VariantHealth", "halvings"]

Floats = NDArray[np.float64]

MOST_LATENCIES = 20_000
"""In a sample, on average: enough for a p99 to within a tenth of a per cent of the ranks."""


def halvings(requests: int) -> int:
    """How often a sample of that number of latencies has been halved."""
    return max(0, math.ceil(math.log2(max(requests, 1) / MOST_LATENCIES)))


@dataclass(frozen=True, eq=False)
class UnitTotals:
    """Counted units of one variant, one row each, and what they did.

    Arrays are ``(units,) float64``. The unit is what was randomised, so it is also what is
    counted: requests of one shopper are not independent of each other.
    """

    requests: Floats
    """Answers that showed something."""
    shown: Floats
    """Products in them."""
    clicks: Floats
    """Shown products that were clicked, each once per answer."""
    purchases: Floats
    revenue: Floats
    ndcg: Floats
    """Sum over the unit's answers with a click of the NDCG of the clicked positions."""
    ndcg_requests: Floats
    """Answers with a click."""
    before: Mapping[str, Floats]
    """The same names, summed over a window before the rollout began: covariates of CUPED.
    Zero for units that were not seen then."""
    units: Sequence[str] = ()
    """Their ids, in the order of the rows."""

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, eq=False)
class VariantHealth:
    """How one variant served."""

    requests: int
    errors: int
    """Answered with a status of 500 or more, or not by this variant's model at all."""
    fallbacks: int
    """Answered without the model."""
    empty: int
    """Answered with no product."""
    latencies_ms: Floats
    """``(requests,)``, or a uniform sample of them, halved ``halvings(requests)`` times."""
    items: Mapping[str, int]
    """How often each product was shown."""
    units: int
    """Different units that were seen."""


@dataclass(frozen=True, eq=False)
class Observation:
    """All that a decision looks at."""

    seconds_in_step: float
    totals: Mapping[str, UnitTotals]
    """By variant: ``control`` and ``challenger``; since the rollout's first exposure."""
    health: Mapping[str, VariantHealth]
    """By variant; of the current step only, so that a mended fault does not count for ever."""
    double_exposed: int
    """Units that were seen in two variants: assignment is broken."""
    shadow: Mapping[str, float]
    """Of the shadow phase: ``requests``, ``errors``, ``overlap`` (mean share of equal products
    in the top k), ``score_drift`` (mean absolute difference of scores, in standard deviations
    of control's), ``p99_ms``, and ``p99_low_ms``, which the true p99 is at least, at every look
    (absent while little is known). Empty otherwise."""
    versions_ready: bool
    """Whether both versions answer a request for readiness."""
    credits: Mapping[str, Floats] = field(default_factory=dict)
    """Of interleaved answers, by team (``control``, ``challenger``): ``(units,)`` clicked
    products that the team had drafted. Empty otherwise."""
