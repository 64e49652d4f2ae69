"""The delta method: variances of ratios, from the moments of what they are made of.

All functions take any shape, one element per variant, rollout or look.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_lift", "ratio_variance"]

Number = TypeVar("Number", float, NDArray[np.float64])


def ratio_variance(
    top: Number, bottom: Number, top_var: Number, bottom_var: Number, covariance: Number
) -> Number:
    """Variance of one unit's part in Σ top / Σ bottom; divide it by the units.

    Units are independent, but the products shown to one of them are not, so the denominator
    varies too (Deng, Knoblich & Lu 2018, arXiv:1803.06336, eq. 4)::

        σ_t²/μ_b² - 2·μ_t·σ_tb/μ_b³ + μ_t²·σ_b²/μ_b⁴

    Args:
        top: mean of the numerator over the units, μ_t.
        bottom: mean of the denominator, μ_b, not 0.
        top_var: variance of the numerator, σ_t².
        bottom_var: variance of the denominator, σ_b².
        covariance: of both, σ_tb.
    """
    return top_var / bottom**2 - 2 * top * covariance / bottom**3 + top**2 * bottom_var / bottom**4


def log_lift(
    control: Number, control_var: Number, challenger: Number, challenger_var: Number
) -> tuple[Number, Number]:
    """Logarithm of challenger / control, and its variance.

    ::

        ln(b/a),   Var(a)/a² + Var(b)/b²

    GrowthBook's interval of the relative lift b/a - 1 has the variance Var(b)/a² +
    Var(a)·b²/a⁴, which is (b/a)² times this one: a challenger that is low by chance seems to be
    known better than one that is high. Looked at often, with few and skewed purchases, that
    called 8 % of equal challengers worse, and 30 % where it was begun with a handful of buyers.
    The logarithm treats both alike (Katz et al. 1978), and its limits make a lift of less than
    -100 % impossible.

    Args:
        control: a, the metric in control, above 0.
        control_var: squared standard error of a.
        challenger: b, above 0.
        challenger_var: squared standard error of b.
    """
    variance = control_var / control**2 + challenger_var / challenger**2
    return np.log(challenger / control), variance
