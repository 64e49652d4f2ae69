"""Caps what one unit counts for, so that no single one decides a metric.

A monitor that asks all day, everybody who is not logged in under one id, or one order in cents
instead of euros has more weight than thousands of shoppers, and a variance that hides every
effect. So each unit counts for at most as much as a quantile of the units has, pooled over both
variants: a winsorised mean (Dixon 1960; Tukey 1962), as experimentation platforms cap by
percentile. Both variants have the same cap, so equal variants stay equal.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from newshelf.rollout.metrics.cuped import Sample

__all__ = ["cap_of", "capped"]

Floats = NDArray[np.float64]
_MOST_OF_ACTIVE = 0.05
"""Of the units that have any. Where hardly anybody buys, the 99.9 % quantile of all units is the
purchase of an ordinary buyer, or none at all."""


def cap_of(values: Floats, quantile: float) -> float:
    """The most that a unit counts for.

    Args:
        values: ``(units,)`` of all variants together, not negative.
        quantile: share of the units that keep what they have; 1 caps none.

    Returns:
        A value such that the share above it is ``1 - quantile``, and at least one unit, but no
        more than a twentieth of those that have any.

    Raises:
        ValueError: a value is not a number.
    """
    if np.isnan(values).any():
        raise ValueError("a unit's count is not a number")
    active = int((values > 0).sum())
    above = min(int((1 - quantile) * len(values) + 1e-9), int(_MOST_OF_ACTIVE * active))
    above = max(above, 1)
    if quantile >= 1 or active <= above:
        return np.inf
    place = len(values) - above - 1
    return float(np.partition(values, place)[place])


def capped(samples: Sequence[Sample], quantile: float) -> tuple[list[Sample], int]:
    """Cap both variants' units alike.

    A unit whose denominator is above the cap keeps its ratio: its numerator shrinks along. Then
    numerators and covariates are capped.

    Args:
        samples: of all variants.
        quantile: see :func:`cap_of`.

    Returns:
        The samples, and how many units were capped.

    Raises:
        ValueError: a value is not a number.
    """
    most_bottom = cap_of(np.concatenate([one.bottom for one in samples]), quantile)
    # A mean's denominators are all 1, and are never above their cap.
    heavy = [one.bottom > most_bottom for one in samples]
    tops = [
        np.where(over, one.top / np.maximum(one.bottom, 1e-300) * most_bottom, one.top)
        if over.any()
        else one.top
        for one, over in zip(samples, heavy, strict=True)
    ]
    most_top = cap_of(np.concatenate(tops), quantile)
    before = np.concatenate([one.before for one in samples])
    most_before = [cap_of(column, quantile) for column in before.T]
    found = [
        Sample(
            np.minimum(top, most_top),
            np.minimum(one.bottom, most_bottom),
            np.minimum(one.before, most_before) if most_before else one.before,
        )
        for one, top in zip(samples, tops, strict=True)
    ]
    number = sum(
        int((over | (top > most_top)).sum()) for over, top in zip(heavy, tops, strict=True)
    )
    return found, number
