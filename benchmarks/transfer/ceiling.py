"""What a better choice could gain: rankers that look at the answers.

They are no methods. A goal above what they reach cannot be had by weighing the same signals
otherwise, or by guessing better how much each item will be asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from newshelf.config import BlendSettings
from newshelf.evaluation.types import FloatArray, IntArray, Split
from newshelf.transfer.ranking import BlendRanker
from newshelf.transfer.siamese import score_all
from newshelf.transfer.signals.blending import fit_blend, make_signals

__all__ = ["Asked", "weighed_by_answers"]


@dataclass(frozen=True)
class Asked:
    """Every item by how many cases ask for it, the same for all shoppers."""

    split: Split
    name: str = "what will be asked for"

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """``(len(histories), N)`` float32."""
        asked = np.concatenate([case.relevant for case in self.split.cases])
        counts = np.bincount(asked, minlength=self.split.n_items).astype(np.float32)
        return np.tile(counts, (len(histories), 1))


def weighed_by_answers(served: BlendRanker, split: Split, settings: BlendSettings) -> BlendRanker:
    """The ranking with the signals' weights fitted on the cases that it is tested on.

    Args:
        served: trained on ``split.train``.
        split: all items are ranked in it.
        settings: that ``served`` was trained with.
    """
    histories = [case.history for case in split.cases]
    signals = make_signals(served.embeddings, split.train, split.train_timestamps, settings)
    relevant = [case.relevant for case in split.cases]
    weights, intercept = fit_blend(
        signals,
        split.cases,
        score_all(served.ranking.scorer, served.embeddings, histories),
        np.unique(np.concatenate([*split.train, *relevant])),
        np.random.default_rng(0),
    )
    ranking = replace(served.ranking, blend=signals.weighed(weights, intercept))
    return replace(served, ranking=ranking, name="weights fitted on the answers")
