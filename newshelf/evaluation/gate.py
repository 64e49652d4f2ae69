"""Cases of the newest days for the gate of a retrained version, and the gate's result."""

import numpy as np

from newshelf.catalog.interactions import Interactions
from newshelf.config import RetrainSettings
from newshelf.errors import EvidenceError
from newshelf.evaluation.splits import MAX_CASES, capped, cut_at
from newshelf.evaluation.types import Interval, Split
from newshelf.files import StrictModel

_DAY_S = 86_400


class Compared(StrictModel):
    """NDCG of both versions on the same cases."""

    name: str
    cases: int
    served: float
    candidate: float
    interval: Interval | None
    """95 % of candidate - served; None with too few cases."""
    p_value: float


class GateResult(StrictModel):
    """Decision of the gate and what it is based on."""

    passed: bool
    reason: str
    split: str
    compared: tuple[Compared, ...]
    """All cases, then those of new products, if there are any."""


def newest_split(
    interactions: Interactions, after: int, settings: RetrainSettings, seed: int
) -> Split:
    """Return the newest days' cases, and the events before them.

    ``after`` is the newest event, in epoch seconds, that the served version has seen: it would
    know the answers of earlier cases. Raises ``EvidenceError`` with too few cases.
    """
    stamps = interactions.timestamps
    if not stamps:
        raise EvidenceError(
            "there are no events with times, so the newest days cannot be held out: record "
            "feedback, or use --gate none"
        )
    newest = max(int(times[-1]) for times in stamps)
    cut = max(newest - settings.gate_days * _DAY_S, after + 1)
    days = f"{(newest - cut) / _DAY_S:.1f} newest days"
    train, train_stamps, train_weights, cases = cut_at(
        interactions.sequences, stamps, cut, weights=interactions.weights
    )
    if len(cases) < settings.min_cases:
        raise EvidenceError(
            f"{len(cases)} shoppers with a history came to a further product in the {days} that "
            f"the served version has not seen, and the gate needs {settings.min_cases} of them "
            "(retrain.min_cases, retrain.gate_days): wait for more traffic, or use --gate none"
        )
    kept, note = capped(cases, MAX_CASES, seed)
    description = (
        f"Products that shoppers first came to in the {days}, which neither version has seen; all "
        f"{interactions.n_items} products ranked. {note}"
    )
    every = np.ones(interactions.n_items, dtype=np.bool_)
    return Split("newest", train, kept, every, description, train_stamps, train_weights)
