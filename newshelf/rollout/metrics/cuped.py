"""CUPED: what is known of a unit from before the rollout takes its noise out.

Deng, Xu, Kohavi & Walker (2013), "Improving the sensitivity of online controlled experiments by
utilizing pre-experiment data". A ratio is first made linear, one number per unit (Deng et al.
2018; Budylin et al. 2018)::

    R = Σ t / Σ b,   ℓ_i = (t_i - R·b_i) / mean(b),   Var(R) = Var(ℓ)/n

Then, with the covariates x and θ of the least squares of ℓ on x within the variants::

    R' = R - θ·(mean_variant(x) - mean_both(x)),   Var(R') = Var(ℓ - θ·x)/n

x was measured before anybody was assigned, so it differs between variants by chance alone, and
R' is as unbiased as R. Without covariates R' is R.

Where little is known, the shift may be as large as R itself. Effects are judged as a ratio, and
of a mean near zero there is none, so R is left as it is where R' is below half of it, or above
twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sample", "adjusted_ratios"]

Floats = NDArray[np.float64]
_LEAST_KEPT = 0.5
"""Of the unadjusted ratio."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One variant: numerator, denominator ``(units,)`` and covariates ``(units, c)``."""

    top: Floats
    bottom: Floats
    before: Floats


def adjusted_ratios(control: Sample, challenger: Sample) -> list[tuple[float, float]]:
    """Adjusted ratio and its variance (squared standard error): of control, then challenger.

    Args:
        control: at least two units, whose denominators do not sum up to 0.
        challenger: likewise, with the same covariates.
    """
    samples = (control, challenger)
    ratios = [float(sample.top.sum() / sample.bottom.sum()) for sample in samples]
    linear = [
        (sample.top - ratio * sample.bottom) / sample.bottom.mean()
        for sample, ratio in zip(samples, ratios, strict=True)
    ]
    theta = _theta([sample.before for sample in samples], linear)
    found = _shifted(samples, ratios, linear, theta)
    kept = [value / ratio for (value, _), ratio in zip(found, ratios, strict=True)]
    if all(_LEAST_KEPT < share < 1 / _LEAST_KEPT for share in kept):
        return found
    return _shifted(samples, ratios, linear, np.zeros_like(theta))


def _shifted(
    samples: Sequence[Sample], ratios: Sequence[float], linear: Sequence[Floats], theta: Floats
) -> list[tuple[float, float]]:
    grand = np.concatenate([sample.before for sample in samples]).mean(axis=0)
    found = []
    for sample, ratio, parts in zip(samples, ratios, linear, strict=True):
        adjusted = parts - sample.before @ theta
        shift = float((sample.before.mean(axis=0) - grand) @ theta)
        found.append((ratio - shift, float(adjusted.var(ddof=1)) / len(adjusted)))
    return found


def _theta(covariates: list[Floats], linear: list[Floats]) -> Floats:
    """(c,) least squares within the variants; 0 for covariates that do not vary."""
    x = np.concatenate([one - one.mean(axis=0) for one in covariates])
    y = np.concatenate([one - one.mean() for one in linear])
    if x.shape[1] == 0:
        return np.zeros(0)
    scale = x.std(axis=0)
    varies = scale > 0
    theta = np.zeros(x.shape[1])
    # Counts and revenue differ by magnitudes, so columns are scaled before they are solved for.
    solved, *_ = np.linalg.lstsq(x[:, varies] / scale[varies], y, rcond=None)
    theta[varies] = solved / scale[varies]
    return theta
