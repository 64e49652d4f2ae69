"""What the families of materials look like from close by, as changes of brightness."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["texture"]

_SIZE = 224
_MARGIN = 32
Floats = npt.NDArray[np.float32]


def texture(finish: str, rng: np.random.Generator) -> Floats:
    """``(224, 224)`` float32 around 0: a random window of the finish's pattern."""
    whole = _pattern(finish)
    x, y = rng.integers(0, _MARGIN, size=2)
    return whole[y : y + _SIZE, x : x + _SIZE]


@cache
def _pattern(finish: str) -> Floats:
    edge = _SIZE + _MARGIN
    rng = np.random.default_rng(20_240)
    noise = rng.standard_normal((edge, edge)).astype(np.float32)
    rows = np.arange(edge, dtype=np.float32)
    if finish == "natural":  # a woven cloth or a grain: threads along and across
        along = _smooth(noise, 9, axis=1) + _smooth(noise.T.copy(), 9, axis=0)
        weave = np.sin(rows * 2.1)[None, :] * np.sin(rows * 2.1)[:, None]
        return _single(0.13 * along + 0.035 * weave)
    if finish == "warm":  # a nap: soft spots
        return _single(0.2 * _smooth(_smooth(noise, 4, axis=0), 4, axis=1))
    if finish == "cool":  # brushed: fine diagonal lines
        lines = np.sin((rows[None, :] + rows[:, None]) * 1.3)
        return _single(0.035 * lines)
    return np.zeros((edge, edge), dtype=np.float32)


def _smooth(noise: Floats, length: int, *, axis: int) -> Floats:
    """Mean of ``length`` neighbours along an axis, around the edge."""
    total = sum(np.roll(noise, step, axis=axis) for step in range(length))
    return _single(np.asarray(total) / length)


def _single(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float32)
