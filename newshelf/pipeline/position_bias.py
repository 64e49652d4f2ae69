"""Position bias: how much less shoppers look at later positions, and weights that correct it.

An answer with exploration has one pair of neighbouring products, at positions k and k + 1, in an
order drawn by chance (RandPair: Wang et al., WSDM 2018). Whatever the products are, each is as
often first, so only examination makes their events more frequent at k. With an examination that
falls as k^-η (Joachims et al., WSDM 2017)::

    logit P(an event of the pair is at k + 1) = -η · log((k + 1) / k)

The inverse propensity of examination, k^η, weighs an event up to a limit, which bounds the variance
and the error of the curve far from where it was observed.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri

from newshelf.errors import EvidenceError
from newshelf.evaluation.types import BoolArray, IntArray
from newshelf.store.records import Exposure, StoredFeedback
from newshelf.store.store import EventStore

LEAST_EVENTS = 100
"""Events of explored pairs below which nothing is estimated."""
_ALPHA = 0.05
_STEPS = 50


@dataclass(frozen=True)
class PositionBias:
    """The exponent η, with an interval clustered by shopper."""

    exponent: float
    low: float
    high: float
    events: int

    def weights(self, positions: IntArray, most: float) -> npt.NDArray[np.float64]:
        """Return ``(events,)`` with a mean of 1: the inverse examination, ``most`` at most."""
        inverse = np.minimum(positions.astype(np.float64) ** self.exponent, most)
        weights: npt.NDArray[np.float64] = inverse / inverse.mean()
        return weights


def fit_position_bias(
    positions: IntArray, is_later: BoolArray, units: Sequence[str]
) -> PositionBias:
    """Estimate from the events of explored pairs, ``(events,)`` each.

    ``positions`` are the pairs' first positions k; ``is_later`` tells an event at k + 1. Raises
    ``EvidenceError`` with too few events, or if they show no bias.
    """
    if len(positions) < LEAST_EVENTS:
        raise EvidenceError(
            f"{len(positions)} events of explored pairs are too few (at least {LEAST_EVENTS}): "
            "set [gateway] explore_share"
        )
    step = -np.log((positions + 1) / positions)
    exponent = 0.0
    for _ in range(_STEPS):
        chance = expit(exponent * step)
        slopes = step * (is_later - chance)
        curvature = (step**2 * chance * (1 - chance)).sum()
        exponent = float(np.clip(exponent + slopes.sum() / curvature, -4, 4))
    _, unit = np.unique(np.array(units, dtype=object), return_inverse=True)
    error = np.sqrt((np.bincount(unit, weights=slopes) ** 2).sum()) / curvature
    low, high = (exponent + sign * ndtri(1 - _ALPHA / 2) * error for sign in (-1, 1))
    if low <= 0:
        raise EvidenceError(
            f"{len(positions)} events of explored pairs show no bias: the exponent is between "
            f"{low:.2f} and {high:.2f}"
        )
    return PositionBias(exponent, float(low), float(high), len(positions))


_DRAWN = 0.75
"""Of an answer's largest propensity; those of an explored pair are half of it."""


def position_weights(
    store: EventStore, events: Sequence[StoredFeedback], most: float
) -> tuple[dict[str, float], list[str]]:
    """Return weights by event id, and for each placement its bias, or why it has no weights.

    Events without an answer have no weight here. The weights of a placement have a mean of 1, so
    that its events together count as before.
    """
    requests = {event.request_id for event in events if event.request_id} if most > 1 else set()
    shown = {
        answer.request_id: (answer.placement or "default", _explored(answer))
        for answer in store.answers(sorted(requests))
    }
    placements = defaultdict[str, list[StoredFeedback]](list)
    for event in events:
        if event.request_id in shown and event.position:
            placements[shown[event.request_id][0]].append(event)
    weights: dict[str, float] = {}
    notes = []
    for name, found in sorted(placements.items()):
        pairs = {}
        for event in found:
            first = shown[str(event.request_id)][1]
            if first and event.position in (first, first + 1):
                key = event.request_id, event.item_id
                pairs[key] = first, event.position > first, event.unit
        firsts, is_later, units = zip(*pairs.values(), strict=True) if pairs else ((), (), ())
        try:
            bias = fit_position_bias(np.array(firsts), np.array(is_later), units)
        except EvidenceError as error:
            notes.append(f"placement {name}: not corrected for position: {error.message}")
            continue
        of_events = bias.weights(np.array([event.position for event in found]), most)
        ids = (event.event_id for event in found)
        weights |= zip(ids, of_events.tolist(), strict=True)
        notes.append(
            f"placement {name}: corrected for position; position k is looked at "
            f"k^-{bias.exponent:.2f} as often as the first (95 % interval of the exponent "
            f"{bias.low:.2f} to {bias.high:.2f}, {bias.events} events of explored pairs)"
        )
    return weights, notes


def _explored(answer: Exposure) -> int:
    """Return the first position of the answer's explored pair; 0 if it has none."""
    likeliest = max((item.propensity for item in answer.items), default=0.0)
    drawn = [item.position for item in answer.items if item.propensity < _DRAWN * likeliest]
    is_pair = len(drawn) == 2 and drawn[1] == drawn[0] + 1  # noqa: PLR2004
    return drawn[0] if is_pair and answer.variant != "interleaved" else 0
