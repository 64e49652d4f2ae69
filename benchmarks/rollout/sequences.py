"""``python -m benchmarks.rollout.sequences``: what looking every 100 users costs and keeps.

Prints the figures of docs/rollout.md and draws its picture.
"""

import timeit
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.rollout.simulate import (
    ALPHA,
    LOOK,
    POWER,
    Draw,
    Looks,
    clicks_of,
    revenue_of,
    simulate,
)
from newshelf.evaluation.figures import Line, draw_lines
from newshelf.rollout.assignment import assign, new_salt
from newshelf.rollout.metrics.delta import ratio_variance
from newshelf.rollout.power import needed_units
from newshelf.rollout.split import Split

__all__ = ["main"]

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "rollout-sequences.png"
_ROLLOUTS = 2000
_EFFECT = 0.1
_CLICKS = 0.1
_SHOWN_FROM = 20
"""Looks before are too wide to be drawn beside the later ones."""


def main() -> None:
    """Simulate, print and draw."""
    console = Console()
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
    """``(looks,)`` share of the rollouts in which it was found at this look or before."""
    share: NDArray[np.float64] = np.maximum.accumulate(found, axis=1).mean(axis=0)
    return share


def _assign_us() -> float:
    split = Split(rollout="r", salt=new_salt(), control="1", challenger="2", share=0.1)
    rounds = timeit.repeat(lambda: assign(split, "shopper-12345"), number=20_000, repeat=5)
    return min(rounds) / 20_000 * 1e6


def _line(looks: Looks, y: NDArray[np.float64], spread: NDArray[np.float64] | None = None) -> Line:
    """``(looks,)`` values over the thousands of users seen by then."""
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


if __name__ == "__main__":
    main()
