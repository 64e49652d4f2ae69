"""The item-to-item weights of EASE in closed form (Steck, WWW 2019, arXiv:1905.03375)."""

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from newshelf.errors import TrainingError
from newshelf.evaluation.types import FloatArray

__all__ = ["ease_weights"]


def ease_weights(gram: npt.NDArray[np.float64], ridge: float) -> FloatArray:
    """Ridge regression of each item on all the others, itself forbidden.

    ::

        P = (XᵀX + λI)⁻¹,  B_ij = -P_ij / P_jj (i ≠ j),  B_ii = 0

    Args:
        gram: XᵀX, (items, items); it is overwritten.
        ridge: λ.

    Returns:
        B, (items, items) float32.

    Raises:
        TrainingError: λ is too small for the matrix to be inverted.
    """
    gram[np.diag_indices_from(gram)] += ridge
    # LAPACK overwrites in place only what is in Fortran's order, as a transpose is.
    factor, info = lapack.dpotrf(gram.T, lower=1, overwrite_a=1)
    if info == 0:
        inverse, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if info != 0:
        raise TrainingError(f"XᵀX + λI is not positive definite (LAPACK {info}): use a larger λ")
    lower = np.tril(inverse)
    inverse = lower + np.tril(lower, -1).T
    weights: FloatArray = (-inverse / np.diag(inverse)[None, :]).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return weights
