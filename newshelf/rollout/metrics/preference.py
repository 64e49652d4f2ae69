"""Which ranking shoppers click in when both are interleaved: the challenger's share of clicks.

Radlinski, Kurup & Joachims (2008) credit a click to the team that drafted the product. Clicks
of one shopper resemble each other, so shoppers, not answers, are what is counted::

    preference = Σ c_challenger / Σ (c_challenger + c_control),   1/2 for equal rankings

with the variance of a ratio (delta method).
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from newshelf.rollout.metrics.capping import cap_of
from newshelf.rollout.metrics.compare import LEAST_ACTIVE_UNITS
from newshelf.rollout.metrics.delta import ratio_variance

__all__ = ["preference"]


def preference(
    by_team: Mapping[str, NDArray[np.float64]], *, cap_quantile: float = 1.0
) -> tuple[float, float] | None:
    """The challenger's share of the credits, and its variance.

    Args:
        by_team: ``(units,)`` clicked products that it had drafted.
        cap_quantile: see ``capping.cap_of``; of the clicks of one shopper.

    Returns:
        None with fewer than ``LEAST_ACTIVE_UNITS`` shoppers who clicked, without variance, or
        with numbers that are too large.

    Raises:
        ValueError: a number of clicks is not a number.
    """
    if not by_team:
        return None
    won = by_team["challenger"]
    with np.errstate(all="ignore"):
        clicked = won + by_team["control"]
    if (clicked > 0).sum() < LEAST_ACTIVE_UNITS:
        return None
    with np.errstate(all="ignore"):
        most = cap_of(clicked, cap_quantile)
        heavy = clicked > most
        # The share of one's clicks stays: capping the challenger's alone would favour control.
        won = np.where(heavy, won / np.maximum(clicked, 1) * most, won)
        clicked = np.minimum(clicked, most)
        moments = np.cov(won, clicked)
        variance = ratio_variance(
            float(won.mean()),
            float(clicked.mean()),
            float(moments[0, 0]),
            float(moments[1, 1]),
            float(moments[0, 1]),
        ) / len(won)
        share = float(won.sum() / clicked.sum())
    return (share, variance) if 0 < variance < math.inf and 0 <= share <= 1 else None
