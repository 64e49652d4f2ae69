"""Confidence sequences on simulated rollouts: what looking every 100 users costs.

Users come in turns to control and challenger, each with answers and a taste of their own. Only
sums are kept, so that a thousand rollouts of ten thousand users take seconds.
"""

import math
import timeit
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from newshelf.pipeline.workspace import ROOT
from newshelf.report.plots import Line, draw_lines
from newshelf.rollout.assignment import assign, new_salt
from newshelf.rollout.metrics import LEAST_ACTIVE_UNITS, log_lift, ratio_variance
from newshelf.rollout.sequential import half_width, needed_information
from newshelf.store.records import TrafficSplit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Draw = Callable[[np.random.Generator, tuple[int, int]], tuple[Floats, Floats]]
"""Draws numerator and denominator of users, in a given shape."""

LOOK = 100
"""Users between two looks, half of them in each variant."""
ALPHA, POWER = 0.05, 0.8
_ONE_LOOK_Z = 1.959964


@dataclass(frozen=True, eq=False)
class Looks:
    """``(rollouts, looks)`` each."""

    log: Floats
    """ln(challenger / control)."""
    variance: Floats
    enough: Bools
    """Whether there are enough active users."""

    def half_width(self, effect: float) -> Floats:
        """Return half the width of the confidence sequence tuned to a relative effect."""
        tuned = needed_information(float(np.log1p(effect)), alpha=ALPHA, power=POWER)
        return half_width(self.variance, 1 / self.variance, tuned_at=tuned, alpha=ALPHA)

    def found(self, effect: float) -> Bools:
        """Return where the sequence excludes "no effect"."""
        return (np.abs(self.log) > self.half_width(effect)) & self.enough

    def found_naively(self) -> Bools:
        """Return where the 95 % interval for a single look excludes it."""
        return (np.abs(self.log) > _ONE_LOOK_Z * np.sqrt(self.variance)) & self.enough


def needed_units(effect: float, *, relative_variance: float, alpha: float, power: float) -> int:
    """Return the units in *each* variant that a relative lift of ``effect`` needs.

    The variance of ln(b/a) after n units in each, with equal variance in both::

        2·v/n,   v = variance of one unit / mean²

    ``effect`` is δ, the relative lift (0.1 for +10 %), ``relative_variance`` v of one unit; (1 - p)
    / p for a binary metric with mean p.
    """
    information = needed_information(math.log1p(effect), alpha=alpha, power=power)
    return math.ceil(2 * relative_variance * information)


def clicks_of(rate: float) -> Draw:
    """Return a draw of clicks on ten products; each user has a rate around ``rate``."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        shown = 10 * random.geometric(0.4, size=shape)
        taste = random.beta(20 * rate, 20 * (1 - rate), size=shape)
        return random.binomial(shown, taste).astype(np.float64), shown.astype(np.float64)

    return draw


def revenue_of(buyers: float) -> Draw:
    """Return a draw of skewed revenue from a share of users."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        paid = random.lognormal(3.0, 1.0, size=shape)
        return (random.random(shape) < buyers) * paid, np.ones(shape)

    return draw


def simulate(control: Draw, challenger: Draw, *, rollouts: int, looks: int, seed: int) -> Looks:
    """Simulate rollouts of ``looks`` × ``LOOK`` users each."""
    random = np.random.default_rng(seed)
    units = (LOOK // 2) * np.arange(1, looks + 1)
    (a, a_var, a_enough), (b, b_var, b_enough) = (
        _ratios(_sums(draw, random, rollouts, looks), units) for draw in (control, challenger)
    )
    enough = a_enough & b_enough
    with np.errstate(divide="ignore", invalid="ignore"):
        log, variance = log_lift(a, a_var, b, b_var)
    # Without enough users there is nothing to compare.
    return Looks(np.where(enough, log, 0.0), np.where(enough, variance, 1.0), enough)


def _sums(draw: Draw, random: np.random.Generator, rollouts: int, looks: int) -> Floats:
    """Return ``(6, rollouts, looks)`` sums for the delta method, up to each look."""
    sums = np.zeros((6, rollouts, looks))
    for look in range(looks):
        top, bottom = draw(random, (rollouts, LOOK // 2))
        parts = (top, bottom, top**2, bottom**2, top * bottom, top > 0)
        sums[:, :, look] = [part.sum(axis=1) for part in parts]
    return np.cumsum(sums, axis=2)


def _ratios(sums: Floats, units: NDArray[np.int64]) -> tuple[Floats, Floats, Bools]:
    top, bottom, tops, bottoms, products, active = sums
    mean_top, mean_bottom = top / units, bottom / units

    def spread(squares: Floats, one: Floats, other: Floats) -> Floats:
        return (squares - units * one * other) / (units - 1)

    variance = ratio_variance(
        mean_top,
        mean_bottom,
        spread(tops, mean_top, mean_top),
        spread(bottoms, mean_bottom, mean_bottom),
        spread(products, mean_top, mean_bottom),
    )
    return top / bottom, variance / units, active >= LEAST_ACTIVE_UNITS


PICTURE = ROOT / "docs" / "images" / "rollout-sequences.png"
_ROLLOUTS = 2000
_EFFECT = 0.1
_CLICKS = 0.1
_SHOWN_FROM = 20
"""First drawn look; intervals of earlier ones are too wide."""


def run(console: Console) -> None:
    """Simulate, print and draw."""
    equal = simulate(clicks_of(_CLICKS), clicks_of(_CLICKS), rollouts=_ROLLOUTS, looks=200, seed=1)
    units = needed_units(_EFFECT, relative_variance=_relative_variance(), alpha=ALPHA, power=POWER)
    lifted = simulate(
        clicks_of(_CLICKS),
        clicks_of(_CLICKS * (1 + _EFFECT)),
        rollouts=_ROLLOUTS,
        looks=-(-2 * units // LOOK),
        seed=2,
    )
    console.print(_errors(equal))
    console.print(_power(lifted, units))
    console.print(f"assign: {_assign_us():.1f} µs")
    _draw(equal, lifted)
    console.print(f"drawn: {PICTURE}")


def _relative_variance() -> float:
    top, bottom = clicks_of(_CLICKS)(np.random.default_rng(9), (1, 400_000))
    moments = np.cov(top[0], bottom[0])
    variance = ratio_variance(
        float(top.mean()),
        float(bottom.mean()),
        float(moments[0, 0]),
        float(moments[1, 1]),
        float(moments[0, 1]),
    )
    return variance / float(top.sum() / bottom.sum()) ** 2


def _errors(equal: Looks) -> Table:
    table = Table(
        "equal versions", "users", "sequence", "interval for one look", title="ever found"
    )
    skewed: list[tuple[str, Draw, int]] = [
        ("revenue, 5 % buy", revenue_of(0.05), 200),
        ("revenue, 1 % buy", revenue_of(0.01), 400),
    ]
    cases = [("clicks, 10 %", equal)] + [
        (name, simulate(draw, draw, rollouts=_ROLLOUTS, looks=looks, seed=3))
        for name, draw, looks in skewed
    ]
    for name, looks in cases:
        effect = _EFFECT if name.startswith("clicks") else 0.5
        table.add_row(
            name,
            str(looks.log.shape[1] * LOOK),
            f"{_ever(looks.found(effect))[-1]:.1%}",
            f"{_ever(looks.found_naively())[-1]:.1%}",
        )
    return table


def _power(lifted: Looks, units: int) -> Table:
    right = lifted.found(_EFFECT) & (lifted.log > 0)
    first = np.argmax(right, axis=1)[right.any(axis=1)]
    table = Table("+10 % clicks", "", title=f"planned: {units} users in each variant")
    table.add_row("found at the planned look", f"{right[:, -1].mean():.1%}")
    table.add_row("found by then", f"{right.any(axis=1).mean():.1%}")
    table.add_row("median users in each when found", f"{(np.median(first) + 1) * LOOK / 2:.0f}")
    return table


def _ever(found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``(looks,)`` shares of rollouts that found it at this look or before."""
    share: NDArray[np.float64] = np.maximum.accumulate(found, axis=1).mean(axis=0)
    return share


def _assign_us() -> float:
    split = TrafficSplit(rollout="r", salt=new_salt(), control="1", challenger="2", share=0.1)
    rounds = timeit.repeat(lambda: assign(split, "shopper-12345"), number=20_000, repeat=5)
    return min(rounds) / 20_000 * 1e6


def _line(looks: Looks, y: NDArray[np.float64], spread: NDArray[np.float64] | None = None) -> Line:
    """Return a line of ``(looks,)`` values over thousands of users."""
    thousands = LOOK / 1000 * np.arange(1, looks.log.shape[1] + 1)
    shown = slice(_SHOWN_FROM, None)
    return Line(
        thousands[shown].tolist(),
        y[shown].tolist(),
        None if spread is None else spread[shown].tolist(),
    )


def _draw(equal: Looks, lifted: Looks) -> None:
    def first(looks: Looks) -> dict[str, Line]:
        log = looks.log[0]
        return {
            "effect, with its confidence sequence": _line(looks, log, looks.half_width(_EFFECT)[0]),
            "no effect": _line(looks, np.zeros_like(log)),
        }

    draw_lines(
        {
            "equal versions": first(equal),
            "+10 % clicks": first(lifted),
            "equal versions ever called different": {
                "confidence sequence": _line(equal, _ever(equal.found(_EFFECT))),
                "interval for one look": _line(equal, _ever(equal.found_naively())),
                "allowed": _line(equal, np.full(equal.log.shape[1], ALPHA)),
            },
        },
        PICTURE,
        xlabel="thousands of users",
        ylabel="",
        percent=True,
    )
