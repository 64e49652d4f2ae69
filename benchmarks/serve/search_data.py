"""Many vectors that lie as those of a real catalogue do."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["grown", "write_grown"]

FloatArray = NDArray[np.float32]

_NEAR = 20
_NOISE = 0.5
"""Length of the noise beside a vector of length 1: further variants of the same kind."""
_BLOCK = 50_000


def grown(real: FloatArray, rows: int, rng: np.random.Generator) -> FloatArray:
    """Products between two real ones that are alike, each a little different.

    ::

        x = a u + (1 - a) v + noise        then of unit length

    ``u`` is a real product, drawn at random, ``v`` one of its 20 nearest, ``a`` uniform, and
    the noise Gaussian with the covariance of the real vectors, so that dimensions that tell
    nothing apart stay so.

    Args:
        real: ``(R, D)`` float32, of unit length.
        rows: so many are made.
        rng: decides them.
    """
    similarity = real @ real.T
    near = np.argpartition(-similarity, _NEAR, axis=1)[:, :_NEAR]
    left = rng.integers(len(real), size=rows)
    right = near[left, rng.integers(_NEAR, size=rows)]
    share = rng.random((rows, 1), dtype=np.float32)
    # A random mixture of the centred real vectors has just their covariance.
    spread = np.linalg.cholesky(np.cov(real.T) + 1e-9 * np.eye(real.shape[1])).astype(np.float32)
    noise = rng.standard_normal((rows, real.shape[1]), dtype=np.float32) @ spread.T
    noise *= _NOISE / np.sqrt((noise**2).sum(axis=1, keepdims=True))
    made = share * real[left] + (1 - share) * real[right] + noise
    unit: FloatArray = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def write_grown(real: FloatArray, rows: int, path: Path, seed: int) -> FloatArray:
    """``grown`` into a file, some at a time; a file that is whole already is used again."""
    rng = np.random.default_rng(seed)
    width = real.shape[1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        made = np.memmap(aside, dtype=np.float32, mode="w+", shape=(rows, width))
        for start in range(0, rows, _BLOCK):
            made[start : start + _BLOCK] = grown(real, min(_BLOCK, rows - start), rng)
        made.flush()
        aside.rename(path)
    return np.asarray(np.memmap(path, dtype=np.float32, mode="r", shape=(rows, width)))
