"""Weights of recorded events by the positions at which their products were shown."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from newshelf.errors import EvidenceError
from newshelf.evaluation.position_bias import fit_position_bias
from newshelf.store.records import Exposure, StoredFeedback
from newshelf.store.store import EventStore

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
