"""A conditional random field that tags product, brand, model and so on in titles.

Linear chain over characters (Lafferty, McCallum & Pereira, ICML 2001), trained with
L-BFGS by CRFsuite (Okazaki 2007):

    p(y | x) ∝ exp Σ_t ( w · f(y_t, x, t) + v[y_{t-1}, y_t] ),
    minimise - Σ log p(y | x) + c1 |w|₁ + c2 |w|²

Each character has one of the tags B, I, E, S of a label, or O.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycrfsuite
import tokenizers
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from newshelf.attributes.title_features import (
    Gazetteer,
    Span,
    TaggedTitle,
    TitleFeatures,
    places,
    read_tagged,
)
from newshelf.config import TextTowerSettings
from newshelf.errors import TrainingError
from newshelf.nn.weights import load_text_tower

_LAYERS = 8
"""Of twelve; chosen like the width on held-out training titles."""
_WIDTH = 96
_FITTED_TITLES = 1000


class TitleContext:
    """Hidden states of the tower, as whitened principal components of those of ``titles``."""

    def __init__(self, titles: Sequence[str]) -> None:
        settings = TextTowerSettings(weights="packaged-multilingual", max_tokens=512)
        loaded = load_text_tower(settings)
        self._tokenizer = tokenizers.Tokenizer.from_str(loaded.tokenizer_json)
        self._tokenizer.enable_truncation(settings.max_tokens)
        self._tower = loaded.tower.backbone
        self._tower.encoder.layer = self._tower.encoder.layer[:_LAYERS]
        states = np.concatenate([self._states(title)[1] for title in titles[:_FITTED_TITLES]])
        self._components = PCA(min(_WIDTH, *states.shape), whiten=True, random_state=0).fit(states)

    def of(self, title: str) -> list[dict[str, float]]:
        """Return each character's place in its token with the token's components."""
        rows: list[dict[str, float]] = [{} for _ in title]
        spans, states = self._states(title)
        values = self._components.transform(states).tolist() if spans else []
        for (start, end), row in zip(spans, values, strict=True):
            for at, place in enumerate(places(start, end), start):
                rows[at] = {f"{place}{number}": value for number, value in enumerate(row)}
        return rows

    def _states(self, title: str) -> tuple[list[tuple[int, int]], NDArray[np.float32]]:
        """Return the ranges of the title's tokens, and their states ``(tokens, 384)``."""
        encoded = self._tokenizer.encode(title)
        kept = [at for at, (start, end) in enumerate(encoded.offsets) if end > start]
        with torch.inference_mode():
            states = self._tower(input_ids=torch.tensor([encoded.ids])).last_hidden_state[0]
        return [encoded.offsets[at] for at in kept], states[kept].numpy()


_OUTSIDE = "O"
_FEWEST_TITLES = 20


@dataclass(frozen=True, slots=True)
class TaggerOptions:
    """Training settings of a tagger. Defaults were chosen on held-out training titles."""

    l1: float = 0.05
    l2: float = 0.05
    iterations: int = 120
    folds: int = 5
    """Each fold takes known names from the other folds, as new titles have unknown names."""


class FoundSpan(NamedTuple):
    """A span and its probability."""

    span: Span
    confidence: float
    """Minimum of the marginal probabilities of its characters."""


class TitleTagger:
    """Tags spans in titles; made by ``train_tagger``."""

    def __init__(self, model: bytes, features: TitleFeatures, context: TitleContext) -> None:
        self.model = model
        self.features = features
        self.context = context
        self._tagger = pycrfsuite.Tagger()
        self._tagger.open_inmemory(model)

    def find(self, title: str) -> list[FoundSpan]:
        """Return the spans of the likeliest tags, in order and without overlaps."""
        if not title:
            return []
        self._tagger.set(items_of(title, self.features, self.context))
        tags = self._tagger.tag()
        return [
            FoundSpan(
                span,
                min(float(self._tagger.marginal(tags[at], at)) for at in range(*span[:2])),
            )
            for span in spans_of(tags)
        ]

    def tag(self, title: str) -> list[Span]:
        """Return the spans without confidences."""
        return [found.span for found in self.find(title)]


def train_tagger(
    titles: Sequence[TaggedTitle], seed: int, scratch: Path, options: TaggerOptions | None = None
) -> TitleTagger:
    """Train a tagger; ``seed`` draws the folds, and CRFsuite writes its file into ``scratch``."""
    options = options or TaggerOptions()
    _check(titles)
    context = TitleContext(list(dict.fromkeys(tagged.title for tagged in titles)))
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c1": options.l1, "c2": options.l2, "max_iterations": options.iterations})
    for held, others in _folds(titles, options.folds, seed):
        features = TitleFeatures(Gazetteer.learn(others))
        for tagged in held:
            trainer.append(items_of(tagged.title, features, context), tags_of(tagged))
    path = scratch / "tagger.crfsuite"
    trainer.train(str(path))
    return TitleTagger(path.read_bytes(), TitleFeatures(Gazetteer.learn(titles)), context)


def items_of(title: str, features: TitleFeatures, context: TitleContext) -> pycrfsuite.ItemSequence:
    """Return the features of each character, from the title alone and from its context."""
    rows = zip(features.of(title), context.of(title), strict=True)
    return pycrfsuite.ItemSequence([dict.fromkeys(names, 1.0) | values for names, values in rows])


def tags_of(tagged: TaggedTitle) -> list[str]:
    """Return ``B-…``, ``I-…``, ``E-…``, ``S-…`` or ``O`` for each character."""
    tags = [_OUTSIDE] * len(tagged.title)
    for start, end, label in tagged.spans:
        tags[start:end] = [f"{place}-{label}" for place in places(start, end)]
    return tags


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Return the spans of tags, well-formed or not: a span extends as far as its label."""
    spans: list[Span] = []
    start = 0
    for at, tag in enumerate(tags):
        if tag == _OUTSIDE:
            continue
        place, label = tag.split("-", 1)
        begins = place in "BS" or at == 0 or tags[at - 1] not in (f"B-{label}", f"I-{label}")
        start = at if begins else start
        if place in "ES" or at + 1 == len(tags) or tags[at + 1] not in (f"I-{label}", f"E-{label}"):
            spans.append(Span(start, at + 1, label))
    return spans


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
    if all(span[:2] == (0, len(tagged.title)) for tagged in titles for span in tagged.spans):
        raise TrainingError("every span is its whole title: there is nothing to tell apart")


def tagger_from_titles(path: Path, seed: int, options: TaggerOptions | None = None) -> TitleTagger:
    """Train a tagger on a file of tagged titles, see ``read_tagged``."""
    titles = read_tagged(path)
    with tempfile.TemporaryDirectory() as scratch:
        return train_tagger(titles, seed, Path(scratch), options)
