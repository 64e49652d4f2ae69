"""Whether probabilities mean what they say."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration_error"]


def calibration_error(
    probability: NDArray[np.floating], label: NDArray[np.floating], bins: int = 15
) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015), over bins of equal count.

    ::

        ECE = Σ_b |b| / N · | mean label in b - mean probability in b |

    Args:
        probability: (N,) in 0..1.
        label: (N,) 0 or 1.
        bins: fewer when there are fewer rows.
    """
    order = np.argsort(probability, kind="stable")
    error = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        error += len(part) * abs(float(label[part].mean()) - float(probability[part].mean()))
    return error / len(order)
