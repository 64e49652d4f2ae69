"""A conditional random field that marks product, brand, model and so on in titles.

Linear chain over characters (Lafferty, McCallum & Pereira, ICML 2001), trained with
L-BFGS by CRFsuite (Okazaki 2007):

    p(y | x) ∝ exp Σ_t ( w · f(y_t, x, t) + v[y_{t-1}, y_t] ),
    minimise - Σ log p(y | x) + c1 |w|₁ + c2 |w|²

Each character has one of the tags B, I, E, S of a label, or O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycrfsuite

from newshelf.errors import TrainingError
from newshelf.knowledge.character_statistics import CharacterStatistics
from newshelf.knowledge.gazetteer import Gazetteer
from newshelf.knowledge.spans import Span, TaggedTitle
from newshelf.knowledge.title_features import TitleFeatures, places

__all__ = ["FoundSpan", "TaggerOptions", "TitleTagger", "train_tagger"]

_OUTSIDE = "O"
_FEWEST_TITLES = 20


@dataclass(frozen=True, slots=True)
class TaggerOptions:
    """How a tagger is trained; chosen on a part of the training titles held out."""

    l1: float = 0.05
    l2: float = 0.05
    iterations: int = 120
    folds: int = 5
    """Parts for which the known names come from the other parts, so that the tagger does
    not learn to trust names more than it may on a new title."""


class FoundSpan(NamedTuple):
    """A span and how likely it is."""

    span: Span
    confidence: float
    """The least of its characters' marginal probabilities."""


class TitleTagger:
    """Marks spans in titles; made by ``train_tagger``.

    Args:
        model: CRFsuite's own format.
        features: as in training.
    """

    def __init__(self, model: bytes, features: TitleFeatures) -> None:
        self.model = model
        self.features = features
        self._tagger = pycrfsuite.Tagger()
        self._tagger.open_inmemory(model)

    def find(self, title: str) -> list[FoundSpan]:
        """The spans of the likeliest tags, in order: inside the title, none overlapping."""
        if not title:
            return []
        self._tagger.set(pycrfsuite.ItemSequence(self.features.of(title)))
        tags = self._tagger.tag()
        return [
            FoundSpan(
                span,
                min(float(self._tagger.marginal(tags[at], at)) for at in range(*span[:2])),
            )
            for span in spans_of(tags)
        ]

    def tag(self, title: str) -> list[Span]:
        """The spans alone."""
        return [found.span for found in self.find(title)]


def train_tagger(
    titles: Sequence[TaggedTitle], seed: int, scratch: Path, options: TaggerOptions | None = None
) -> TitleTagger:
    """Train a tagger.

    Args:
        titles: the more, the better; a few thousand for a good one.
        seed: deals titles into folds; equal titles come into the same.
        scratch: an existing folder for CRFsuite, which writes to a file only.
        options: how.

    Raises:
        TrainingError: too few titles, or nothing to tell apart.
    """
    options = options or TaggerOptions()
    _check(titles)
    statistics = CharacterStatistics.learn([tagged.title for tagged in titles])
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(
        {
            "c1": options.l1,
            "c2": options.l2,
            "max_iterations": options.iterations,
            "feature.minfreq": 1,
        }
    )
    for held, others in _folds(titles, options.folds, seed):
        features = TitleFeatures(Gazetteer.learn(others), statistics)
        for tagged in held:
            rows = pycrfsuite.ItemSequence(features.of(tagged.title))
            trainer.append(rows, tags_of(tagged))
    path = scratch / "tagger.crfsuite"
    trainer.train(str(path))
    return TitleTagger(path.read_bytes(), TitleFeatures(Gazetteer.learn(titles), statistics))


def tags_of(tagged: TaggedTitle) -> list[str]:
    """``B-…``, ``I-…``, ``E-…``, ``S-…`` or ``O`` for each character."""
    tags = [_OUTSIDE] * len(tagged.title)
    for start, end, label in tagged.spans:
        tags[start:end] = [f"{place}-{label}" for place in places(start, end)]
    return tags


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of any tags, well-formed or not: a span goes on as long as its label does."""
    spans: list[Span] = []
    start = 0
    for at, tag in enumerate(tags):
        if tag == _OUTSIDE:
            continue
        place, label = tag.split("-", 1)
        begins = place in "BS" or at == 0 or not _goes_on(tags[at - 1], label)
        start = at if begins else start
        if place in "ES" or at + 1 == len(tags) or not _follows(tags[at + 1], label):
            spans.append(Span(start, at + 1, label))
    return spans


def _goes_on(tag: str, label: str) -> bool:
    return tag in (f"B-{label}", f"I-{label}")


def _follows(tag: str, label: str) -> bool:
    return tag in (f"I-{label}", f"E-{label}")


def _folds(
    titles: Sequence[TaggedTitle], folds: int, seed: int
) -> list[tuple[list[TaggedTitle], list[TaggedTitle]]]:
    distinct = list(dict.fromkeys(tagged.title for tagged in titles))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[row]: place % folds for place, row in enumerate(order)}
    return [
        (
            [tagged for tagged in titles if fold_of[tagged.title] == fold],
            [tagged for tagged in titles if fold_of[tagged.title] != fold],
        )
        for fold in range(folds)
    ]


def _check(titles: Sequence[TaggedTitle]) -> None:
    if len(titles) < _FEWEST_TITLES:
        raise TrainingError(
            f"{len(titles)} tagged titles: a tagger needs at least {_FEWEST_TITLES}, "
            "and a good one some thousands"
        )
    if not any(tagged.spans for tagged in titles):
        raise TrainingError("no title has a span: there is nothing to learn")
    if all(span == (0, len(tagged.title)) for tagged in titles for span in _bounds(tagged)):
        raise TrainingError("every span is its whole title: there is nothing to tell apart")


def _bounds(tagged: TaggedTitle) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in tagged.spans]
