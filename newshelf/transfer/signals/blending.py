"""Every signal of a catalogue, the fit of their weights, and the blend that is served."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor

from newshelf.config import BlendSettings
from newshelf.evaluation.types import Case
from newshelf.nn.blend import LINKS, Blend, content_signal
from newshelf.nn.spec import BlendSpec
from newshelf.transfer.signals.cooccurrence import Taken, direct_links
from newshelf.transfer.signals.logit import calibrate, fit_weights
from newshelf.transfer.signals.neighbours import content_neighbours
from newshelf.transfer.signals.popularity import popularity_features

__all__ = ["MIN_CASES", "Signals", "fit_blend", "make_signals"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

MIN_CASES = 30
"""Fewer cases say too little about a dozen weights."""
_MAX_ITEMS = 4096
"""Items over which the likelihood is summed; of a larger shelf, a uniform draw."""
_CASES_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Signals:
    """What behaviour and content say, before it is weighed."""

    links: sparse.csr_array
    """``(N, N)`` float32: what was taken together."""
    neighbours: sparse.csr_array
    """``(N, N)`` float32: likeness, each row's sum 1."""
    unpersonal: dict[str, FloatArray]
    """``(N,)`` float32 each."""
    embeddings: FloatArray
    """``(N, D)`` of unit length."""
    temperature: float

    def weighed(self, weights: dict[str, float], intercept: float = 0.0) -> Blend:
        """The blend under these weights, by signal."""
        prior = np.full(len(self.embeddings), intercept, dtype=np.float32)
        for name, feature in self.unpersonal.items():
            prior += np.float32(weights[name]) * feature
        kept = {name: weights[name] for name in ("siamese", "content", *LINKS)}
        spec = BlendSpec(weights=kept, temperature=self.temperature)
        return Blend(spec, self.links, self.neighbours, prior)

    @property
    def names(self) -> tuple[str, ...]:
        """All signals, in the order of :meth:`table`'s last axis."""
        return ("siamese", "content", *LINKS, *self.unpersonal)

    def table(
        self, histories: Sequence[IntArray], siamese: FloatArray, columns: IntArray
    ) -> FloatArray:
        """``(B, C, S)`` float32: every signal for some items.

        Args:
            histories: B arrays of item rows, none empty.
            siamese: ``(B, N)``.
            columns: ``(C,)`` item rows.
        """
        blank = self.weighed(dict.fromkeys(self.names, 0.0))
        rows = []
        for start in range(0, len(histories), _CASES_AT_ONCE):
            part = histories[start : start + _CASES_AT_ONCE]
            linked = blank.links_signals(blank.linked(blank.history(part)))
            content = np.stack([self._content(history, columns) for history in part])
            personal = [siamese[start : start + len(part), columns], content]
            personal += [linked[name][:, columns] for name in LINKS]
            shared = [
                np.broadcast_to(feature[columns], content.shape)
                for feature in self.unpersonal.values()
            ]
            rows.append(np.stack([*personal, *shared], axis=2))
        return np.concatenate(rows)

    def _content(self, history: IntArray, columns: IntArray) -> FloatArray:
        cosines = self.embeddings[history] @ self.embeddings[columns].T
        return content_signal(cosines, self.temperature)


def make_signals(
    embeddings: Tensor,
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray] | None,
    settings: BlendSettings,
) -> Signals:
    """From the training interactions alone.

    Args:
        embeddings: ``(N, D)`` float32 of unit length.
        sequences: item rows; one array per shopper or basket.
        timestamps: epoch seconds, parallel; None for baskets.
        settings: ridge, half-life and sizes.
    """
    neighbours = content_neighbours(embeddings)
    taken = Taken.of(sequences, timestamps, len(embeddings), settings.half_life_days)
    return Signals(
        links=direct_links(
            taken,
            ridge=settings.ridge,
            max_items=settings.linked_items,
            per_item=settings.links_per_item,
        ),
        neighbours=neighbours,
        unpersonal=popularity_features(sequences, timestamps, neighbours),
        embeddings=embeddings.numpy(),
        temperature=BlendSpec(weights={}).temperature,
    )


def fit_blend(
    signals: Signals,
    cases: Sequence[Case],
    siamese: FloatArray,
    met: IntArray,
    generator: np.random.Generator,
) -> tuple[dict[str, float], float]:
    """Weights by signal, and the intercept, on the scale of log-odds.

    An item that nobody ever met is not known to be disliked, so it is no alternative: else
    the weights would learn that what is new is not taken. Those that stand for the new ones
    are the items that lost their behaviour.

    Args:
        signals: made without the cases.
        cases: at least :data:`MIN_CASES`.
        siamese: ``(cases, N)``, of a scorer trained without the cases.
        met: rows of the items with an interaction in the training, cases included.
        generator: draws the items that the likelihood is summed over.

    Raises:
        TrainingError: see ``newshelf.transfer.signals.logit``.
    """
    columns, stands_for = _columns(cases, met, generator)
    table = signals.table([case.history for case in cases], siamese, columns)
    relevant = np.stack([np.isin(columns, case.relevant) for case in cases])
    ranked = np.stack([~np.isin(columns, case.history) for case in cases])
    correction = np.where(relevant, 0, np.log(stands_for)).astype(np.float32)
    weights = fit_weights(table, relevant, ranked, correction)
    scores = table @ weights
    counted = np.where(relevant, 1, stands_for)
    slope, intercept = calibrate(
        [row[keep] for row, keep in zip(scores, ranked, strict=True)],
        [row[keep] for row, keep in zip(relevant, ranked, strict=True)],
        [row[keep] for row, keep in zip(counted, ranked, strict=True)],
    )
    fitted = zip(signals.names, (slope * weights).tolist(), strict=True)
    return dict(fitted), intercept


def _columns(
    cases: Sequence[Case], met: IntArray, generator: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """The items that are summed over, and how many others each stands for."""
    if len(met) <= _MAX_ITEMS:
        return met, np.ones(len(met), dtype=np.float32)
    wanted = np.unique(np.concatenate([case.relevant for case in cases]))
    others = np.setdiff1d(met, wanted)
    drawn = generator.choice(others, min(len(others), _MAX_ITEMS), replace=False)
    columns = np.concatenate([wanted, drawn])
    stands_for = np.ones(len(columns), dtype=np.float32)
    stands_for[len(wanted) :] = len(others) / max(1, len(drawn))
    return columns, stands_for
