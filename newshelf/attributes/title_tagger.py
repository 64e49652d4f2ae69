"""A conditional random field that marks product, brand, model and so on in titles.

Linear chain over characters (Lafferty, McCallum & Pereira, ICML 2001), trained with
L-BFGS by CRFsuite (Okazaki 2007):

    p(y | x) ∝ exp Σ_t ( w · f(y_t, x, t) + v[y_{t-1}, y_t] ),
    minimise - Σ log p(y | x) + c1 |w|₁ + c2 |w|²

Each character has one of the tags B, I, E, S of a label, or O.

Titles with marked spans: what a tagger learns from, and what it gives back.

How many spans are found exactly: micro-averaged precision, recall and F1.

    P = found / predicted,  R = found / true,  F1 = 2 · found / (predicted + true)

A span is found when start, end and label all agree (the CoNLL measure).

A trained tagger on disk, and from a user's own tagged titles.

A folder::

    tagger.crfsuite   CRFsuite's model
    tagger.json       format, the model's SHA-256, known names, statistics of characters
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pycrfsuite
from pydantic import BaseModel, ConfigDict, ValidationError

from newshelf.attributes.title_features import (
    CharacterStatistics,
    Gazetteer,
    Span,
    TaggedTitle,
    TitleFeatures,
    places,
    read_tagged,
)
from newshelf.errors import TrainingError, WeightsError
from newshelf.files import directory_aside, read_json, write_json

_OUTSIDE = "O"
_FEWEST_TITLES = 20


@dataclass(frozen=True, slots=True)
class TaggerOptions:
    """Training settings of a tagger, chosen on a held-out part of the training titles."""

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


class SpanScore(NamedTuple):
    """Counts of spans; the rates are 0 where there is nothing to divide by."""

    found: int
    predicted: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the predicted spans that are right."""
        return self.found / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true spans that are found."""
        return self.found / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.predicted + self.true
        return 2 * self.found / total if total else 0.0


def span_scores(
    predicted: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]]
) -> dict[str, SpanScore]:
    """Scores of all titles together: under ``""`` of all labels, then of each label.

    Raises:
        ValueError: the two have not the same number of titles.
    """
    found: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    truths: Counter[str] = Counter()
    for guess, truth in zip(predicted, true, strict=True):
        for counter, spans in (
            (guesses, set(guess)),
            (truths, set(truth)),
            (found, set(guess) & set(truth)),
        ):
            for span in spans:
                counter[span.label] += 1
                counter[""] += 1
    labels = ["", *sorted((guesses | truths).keys() - {""})]
    return {label: SpanScore(found[label], guesses[label], truths[label]) for label in labels}


_MODEL, _REST = "tagger.crfsuite", "tagger.json"


class _Rest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    format: Literal[1] = 1
    sha256: str
    names: dict[str, tuple[str, float]]
    longest: int
    cohesion: dict[str, int]
    after: dict[str, int]
    before: dict[str, int]


def tagger_from_titles(path: Path, seed: int, options: TaggerOptions | None = None) -> TitleTagger:
    """Train a tagger on a file of tagged titles, see ``read_tagged``.

    Raises:
        TrainingError: with file, line and reason; or there is too little to learn from.
    """
    titles = read_tagged(path)
    with tempfile.TemporaryDirectory() as scratch:
        return train_tagger(titles, seed, Path(scratch), options)


def write_tagger(tagger: TitleTagger, folder: Path) -> None:
    """Write a tagger, aside and renamed."""
    features = tagger.features
    rest = _Rest(
        sha256=hashlib.sha256(tagger.model).hexdigest(),
        names=features.gazetteer.names,
        longest=features.gazetteer.longest,
        cohesion=features.statistics.cohesion,
        after=features.statistics.after,
        before=features.statistics.before,
    )
    with directory_aside(folder) as aside:
        (aside / _MODEL).write_bytes(tagger.model)
        write_json(aside / _REST, rest.model_dump())


def read_tagger(folder: Path) -> TitleTagger:
    """Read what ``write_tagger`` wrote.

    Raises:
        WeightsError: a file is missing or damaged, or the two do not belong together.
    """
    try:
        model = (folder / _MODEL).read_bytes()
        rest = _Rest.model_validate(read_json(folder / _REST))
    except (OSError, ValueError, ValidationError) as error:
        raise WeightsError(f"the tagger {folder} cannot be read: {error}") from error
    # CRFsuite trusts its file, and may crash on a damaged one.
    if hashlib.sha256(model).hexdigest() != rest.sha256:
        raise WeightsError(f"the tagger {folder}: {_MODEL} is not the one that was written")
    statistics = CharacterStatistics(rest.cohesion, rest.after, rest.before)
    return TitleTagger(model, TitleFeatures(Gazetteer(rest.names, rest.longest), statistics))
