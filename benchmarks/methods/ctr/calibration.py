"""Whether probabilities mean what they say."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration_error"]


def calibration_error(
    probability: NDArray[np.floating], label: NDArray[np.floating], bins: int = 15
) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015), over bins of equal width.

    ::

        ECE = Σ_b |b| / N · | mean label in b - mean probability in b |

    Args:
        probability: (N,) in 0..1.
        label: (N,) 0 or 1.
        bins: of 0..1; an empty one counts nothing.
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, label.astype(np.float64) - probability, minlength=bins)
    return float(np.abs(gap).sum() / len(label))
