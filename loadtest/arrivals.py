"""When requests arrive: a Poisson process whose rate follows a shape.

Shoppers do not wait for each other, so the moments are drawn before the run and do not depend
on how the server fares.
"""

from collections.abc import Iterator

import numpy as np

from loadtest.shapes import Shape

__all__ = ["poisson_arrivals"]

_BLOCK = 1024


def poisson_arrivals(
    shape: Shape, rate: float, seconds: float, random: np.random.Generator
) -> Iterator[float]:
    """Draw the moments of a non-homogeneous Poisson process by thinning.

    A homogeneous process of the greatest rate is drawn, and a moment ``t`` of it is kept with
    probability ``rate(t) / greatest rate`` (Lewis and Shedler, *Simulation of nonhomogeneous
    Poisson processes by thinning*, 1979). Independent processes add up: ``n`` of them with
    ``rate / n`` each are one of ``rate``.

    Args:
        shape: how the rate changes over the run.
        rate: requests/s where the shape's factor is 1.
        seconds: how long the run is.
        random: equal states draw equal moments.

    Yields:
        Seconds since the start, ascending, each below ``seconds``. They are drawn in blocks,
        so that a long run takes no memory.
    """
    greatest = rate * shape.peak
    if greatest <= 0:
        return
    last = 0.0
    while last < seconds:
        moments = last + np.cumsum(random.exponential(1 / greatest, _BLOCK))
        last = float(moments[-1])
        chance = random.random(_BLOCK)
        inside = moments < seconds
        moments, chance = moments[inside], chance[inside]
        yield from moments[chance * shape.peak < shape.factor(moments / seconds)].tolist()
