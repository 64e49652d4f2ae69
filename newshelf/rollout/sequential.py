"""Confidence sequences: intervals that hold at every look at once, however often one looks.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2021, 2024,
arXiv:2103.06476, eq. 9; Robbins' normal mixture), in the form in which GrowthBook publishes its
sequential tests. For an estimate with variance V (the squared standard error) after ``n``::

    estimate ± √V · √( 2 · (n·ρ² + 1) / (n·ρ²) · ln( √(n·ρ² + 1) / α ) )
    ρ² = ( -2·ln α + ln(1 - 2·ln α) ) / N*

At N* the sequence is tightest; it is valid everywhere. GrowthBook counts units as ``n``. Only
the ratio n / N* matters, so any clock does that runs with 1 / V. We let the *information* 1 / V
be the clock: shoppers come back, and an analysis that is looked at while nobody new arrives
still learns, which a count of units would not see (information as the clock of group-sequential
trials: Lan & Zucker 1993; Jennison & Turnbull 2000, ch. 11).
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["half_width", "p_value", "tuning_rho"]

Number = TypeVar("Number", float, NDArray[np.float64])


def tuning_rho(tuned_at: float, alpha: float) -> float:
    """ρ, which makes the sequence tightest at ``tuned_at`` (arXiv:2103.06476, eq. 161).

    Args:
        tuned_at: N*, in the unit of the clock.
        alpha: the share of sequences that may ever miss the truth.
    """
    return float(np.sqrt((-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / tuned_at))


def half_width(variance: Number, n: Number, *, tuned_at: float, alpha: float) -> Number:
    """Half of the width of a two-sided 1 - α confidence sequence.

    Args:
        variance: of the estimate (its squared standard error), any shape.
        n: the clock, in any unit that grows as 1 / variance; the same shape.
        tuned_at: N*, in the unit of ``n``.
        alpha: the share of sequences that may ever miss the truth.
    """
    grown = n * tuning_rho(tuned_at, alpha) ** 2
    width: Number = np.sqrt(variance * 2 * (grown + 1) / grown * np.log(np.sqrt(grown + 1) / alpha))
    return width


def p_value(
    estimate: Number, variance: Number, n: Number, *, tuned_at: float, alpha: float
) -> Number:
    """Anytime-valid p of "the truth is 0": the least α' whose sequence leaves 0 out.

    ``1 / e`` with the mixture's e-value, ρ as for ``alpha``::

        e = exp( z²/2 · n·ρ² / (n·ρ² + 1) ) / √(n·ρ² + 1),   z² = estimate² / variance

    It is below ``alpha`` exactly when the sequence of :func:`half_width` leaves 0 out.
    """
    grown = n * tuning_rho(tuned_at, alpha) ** 2
    log_e = estimate**2 / variance / 2 * grown / (grown + 1) - np.log(grown + 1) / 2
    p: Number = np.minimum(np.exp(-log_e), 1.0)
    return p
