"""Training of the served ranking: the Siamese scorer and the weighted signals.

Phase 1 holds a part of the data out, trains a scorer and computes the signals without it, and
fits the signals' weights on it. Phase 2 trains the scorer and computes the signals from all
data, with the weights of phase 1: weights fitted on data that a signal has seen would be too
large.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from newshelf.catalog.interactions import latest
from newshelf.config import ScorerSettings
from newshelf.evaluation.types import FloatArray
from newshelf.nn.blend import Blend, content_signal
from newshelf.nn.scorer import SiameseScorer
from newshelf.training.run import Run
from newshelf.training.siamese import score_all, train_scorer
from newshelf.training.signal_weights import MIN_CASES, fit_blend, make_signals
from newshelf.training.signals import hold_out

IntArray = npt.NDArray[np.int64]

_SINGLE_VISIT_SHARE = 0.5
_PHASE_1_DIVISOR = 2
"""Phase 1's scorer takes this fraction of epochs and steps: it only serves to fit weights."""


@dataclass(frozen=True)
class Ranking:
    """The trained scorer, its blend (None with too few cases), and its losses."""

    scorer: SiameseScorer
    blend: Blend | None
    losses: list[float]


def train_ranking(
    embeddings: Tensor,
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray] | None,
    settings: ScorerSettings,
    run: Run,
    *,
    start: SiameseScorer | None = None,
    weights: Sequence[FloatArray] | None = None,
) -> Ranking:
    """Train scorer and blend in both phases; ``start`` is an earlier version's scorer.

    ``embeddings`` are ``(N, 512)`` float32 of unit length, ``sequences`` item rows of shoppers,
    oldest first, or of baskets, which have no ``timestamps`` (epoch seconds). If most shoppers came
    only once, there is no order to learn, and their sequences are read as baskets, without
    ``weights``. These are those of the interactions; None if all are equal.

    Raises:
        TrainingError: no sequence has two different items, or a loss is not finite.
    """
    if timestamps is not None and _mostly_single_visits(timestamps):
        # A basket has an item once, however often a shopper viewed it.
        sequences, timestamps, weights = [latest(sequence) for sequence in sequences], None, None
    ordered = timestamps is not None
    fitted = None
    if settings.blend.enabled and sequences:
        fitted = _fit_weights(embeddings, sequences, timestamps, settings, run, weights)
    result = train_scorer(
        embeddings,
        sequences,
        ordered=ordered,
        settings=settings,
        run=run,
        start=start,
        weights=weights,
    )
    blend = None
    if fitted is not None:
        signals = make_signals(embeddings, sequences, timestamps, settings.blend, weights)
        blend = signals.weighed(*fitted)
    return Ranking(result.scorer, blend, result.losses)


def _fit_weights(
    embeddings: Tensor,
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray] | None,
    settings: ScorerSettings,
    run: Run,
    weights: Sequence[FloatArray] | None,
) -> tuple[dict[str, float], float] | None:
    """Return weights and intercept of phase 1; None with too few cases."""
    generator = np.random.default_rng(run.seed)
    held = hold_out(
        sequences,
        timestamps,
        len(embeddings),
        fraction=settings.blend.held_out,
        dropped=settings.blend.dropped_items,
        max_cases=settings.blend.max_cases,
        generator=generator,
        weights=weights,
    )
    if len(held.cases) < MIN_CASES or not any(len(np.unique(s)) > 1 for s in held.sequences):
        run.console.print(
            f"[yellow]{len(held.cases)} cases are too few to weigh signals on "
            f"(at least {MIN_CASES}): the scorer ranks alone[/]"
        )
        return None
    shorter = settings.model_copy(
        update={
            "epochs": max(1, settings.epochs // _PHASE_1_DIVISOR),
            "max_steps": max(1, settings.max_steps // _PHASE_1_DIVISOR),
        }
    )
    scorer = train_scorer(
        embeddings,
        held.sequences,
        ordered=timestamps is not None,
        settings=shorter,
        run=replace(run, labels={"scorer-held": "training a scorer to weigh the signals with"}),
        name="scorer-held",
        weights=held.weights,
    ).scorer
    siamese = score_all(scorer, embeddings, [case.history for case in held.cases])
    signals = make_signals(
        embeddings, held.sequences, held.timestamps, settings.blend, held.weights
    )
    known = np.unique(np.concatenate(sequences))
    return fit_blend(signals, held.cases, siamese, known, generator)


def _mostly_single_visits(timestamps: Sequence[IntArray]) -> bool:
    once = sum(len(np.unique(times)) == 1 for times in timestamps)
    return once > _SINGLE_VISIT_SHARE * len(timestamps)


@dataclass(frozen=True)
class BlendRanker:
    """Scores of the whole catalogue, for evaluation."""

    ranking: Ranking
    embeddings: Tensor
    name: str = "newshelf"

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """``(len(histories), N)`` float32, higher is better."""
        siamese = score_all(self.ranking.scorer, self.embeddings, histories)
        blend = self.ranking.blend
        if blend is None:
            return siamese
        weights = blend.spec.weights
        vectors = self.embeddings.numpy()
        signals = blend.links_signals(blend.linked(blend.history(histories)))
        total = blend.unpersonal(signals, blend.prior)
        total += weights["siamese"] * siamese
        for row, history in enumerate(histories):
            cosines = vectors[history] @ vectors.T
            total[row] += weights["content"] * content_signal(cosines, blend.spec.temperature)
        return total.astype(np.float32)
