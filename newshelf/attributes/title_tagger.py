"""A conditional random field that tags product, brand, model and so on in titles.

Linear chain over characters (Lafferty, McCallum & Pereira, ICML 2001), trained with
L-BFGS by CRFsuite (Okazaki 2007):

    p(y | x) ∝ exp Σ_t ( w · f(y_t, x, t) + v[y_{t-1}, y_t] ),
    minimise - Σ log p(y | x) + c1 |w|₁ + c2 |w|²

Each character has one of the tags B, I, E, S of a label, or O. Features come from the characters
around, and from a gazetteer of names in tagged titles, which alone is the baseline of a tagger.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pycrfsuite
import tokenizers
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.decomposition import PCA

from newshelf.config import TextTowerSettings
from newshelf.errors import TrainingError
from newshelf.files import problems
from newshelf.nn.weights import load_text_tower


class Span(NamedTuple):
    """``title[start:end]`` is a ``label``; positions count characters from 0."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class TaggedTitle:
    """A title and its spans: inside the title, none empty, in order, none overlapping."""

    title: str
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        if problem := span_problem(self.title, self.spans):
            raise ValueError(problem)


def span_problem(title: str, spans: Sequence[Span]) -> str | None:
    """Return why the spans are invalid for the title, or None."""
    end = 0
    for span in spans:
        where = f"span {span.start}…{span.end} ({span.label})"
        if span.start < 0 or span.end > len(title):
            return f"{where} is outside the title of {len(title)} characters"
        if span.start >= span.end:
            return f"{where} is empty: the end must come after the start"
        if span.start < end:
            return f"{where} overlaps the one before it, or comes before it"
        end = span.end
    return None


_EXPECTED = 'write {"title": text, "entities": [[start, end, label], …]}'
_Text = Annotated[str, Field(pattern=r"\S")]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    title: _Text
    entities: list[tuple[int, int, _Text]]

    def tagged(self) -> TaggedTitle:
        return TaggedTitle(self.title, tuple(sorted(Span(*entity) for entity in self.entities)))


def read_tagged(path: Path) -> list[TaggedTitle]:
    """Read ``{"title": …, "entities": [[start, end, label], …]}``, one object per line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise TrainingError(f"cannot read the tagged titles {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8: {error}") from error
    titles: list[TaggedTitle] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                titles.append(_Line.model_validate_json(line).tagged())
            except ValueError as error:
                why = problems(error) if isinstance(error, ValidationError) else error
                raise TrainingError(f"{path} line {number}: {why}; {_EXPECTED}") from error
    if not titles:
        raise TrainingError(f"{path} has no tagged titles: write one JSON object per line")
    return titles


_LONG = 6
"""Longer names count as this length."""
_SHARES = (0.2, 0.4, 0.6, 0.8, 0.95)
_PAD = "□"


class Match(NamedTuple):
    """``title[start:end]`` is a known name, most often of ``label``."""

    start: int
    end: int
    label: str
    share: float
    """Share of the name's occurrences in training titles that are tagged with ``label``."""


@dataclass(frozen=True)
class Gazetteer:
    """Names with their most frequent label and its share of the occurrences."""

    names: dict[str, tuple[str, float]]
    longest: int

    @classmethod
    def learn(cls, titles: Sequence[TaggedTitle]) -> "Gazetteer":
        """Return the names of the titles' spans, in lower case."""
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        for tagged in titles:
            for span in tagged.spans:
                labels[tagged.title[span.start : span.end].lower()][span.label] += 1
        longest = max(map(len, labels), default=0)
        seen: Counter[str] = Counter()
        for tagged in titles:
            text = tagged.title.lower()
            seen.update(
                text[start:end]
                for start in range(len(text))
                for end in range(start + 1, min(start + longest, len(text)) + 1)
                if text[start:end] in labels
            )
        names = {
            # Lower case can change the length of a text, so that the name is not found.
            name: (label, count / max(seen[name], count))
            for name, counts in labels.items()
            # Ties are broken alphabetically, independent of the order of titles.
            for label, count in [min(counts.items(), key=lambda item: (-item[1], item[0]))]
        }
        return cls(names, longest)

    def all_matches(self, title: str) -> list[Match]:
        """Return every known name in the title, with overlaps."""
        text = title.lower()
        if len(text) != len(title):
            return []
        return [
            Match(start, end, *self.names[text[start:end]])
            for start in range(len(text))
            for end in range(start + 1, min(start + self.longest, len(text)) + 1)
            if text[start:end] in self.names
        ]

    def longest_matches(self, title: str, least_share: float = 0.0) -> list[Match]:
        """Return the longest names of at least the share, left to right, without overlaps."""
        found: list[Match] = []
        for match in sorted(self.all_matches(title), key=lambda match: (match.start, -match.end)):
            if match.share >= least_share and (not found or match.start >= found[-1].end):
                found.append(match)
        return found

    def features(self, title: str) -> list[list[str]]:
        """Return each character's features: neighbours, kinds, known names and place."""
        text = title.lower()
        if len(text) != len(title):
            text = title
        padded = _PAD * 3 + text + _PAD * 3
        kinds = [_PAD, *map(_kind, title), _PAD]
        rows = [_around(padded, at + 3) for at in range(len(title))]
        for at, row in enumerate(rows):
            row.append("kinds=" + "".join(kinds[at : at + 3]))
        for name, matches in (
            ("any", self.all_matches(title)),
            ("max", self.longest_matches(title)),
            ("sure", self.longest_matches(title, 0.5)),
        ):
            for match in matches:
                _mark(rows, match, name)
        if rows:
            rows[0].append("first")
            rows[-1].append("last")
        return rows


def _mark(rows: list[list[str]], match: Match, name: str) -> None:
    length = min(match.end - match.start, _LONG)
    share = sum(match.share >= edge for edge in _SHARES)
    for at in range(match.start, match.end):
        place = _place(at, match.start, match.end)
        rows[at].append(f"{name}={place}{match.label}{length}")
        rows[at].append(f"{name}%={place}{match.label}{share}")
    if match.start:
        rows[match.start - 1].append(f"{name}>={match.label}{share}")
    if match.end < len(rows):
        rows[match.end].append(f"{name}<={match.label}{share}")


def _around(padded: str, at: int) -> list[str]:
    row = [f"{shift}={padded[at + shift]}" for shift in (-3, -2, -1, 0, 1, 2, 3)]
    row += [f"{shift}:2={padded[at + shift : at + shift + 2]}" for shift in (-2, -1, 0, 1)]
    row += [f"{shift}:3={padded[at + shift : at + shift + 3]}" for shift in (-2, -1, 0)]
    return row


def _place(at: int, start: int, end: int) -> str:
    if end - start == 1:
        return "S"
    if at == start:
        return "B"
    return "E" if at == end - 1 else "I"


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isascii() and character.isalpha():
        return "A" if character.isupper() else "a"
    if "一" <= character <= "鿿":
        return "文"
    return "s" if character.isspace() else "."


def places(start: int, end: int) -> Sequence[str]:
    """Return ``B I … E``, or ``S`` for one character."""
    return [_place(at, start, end) for at in range(start, end)]


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


_L1, _L2, _ITERATIONS = 0.05, 0.05, 120
"""Chosen on held-out training titles, as are the folds."""
_FOLDS = 5
"""Each fold takes known names from the other folds, as new titles have unknown names."""


class FoundSpan(NamedTuple):
    """A span and its probability."""

    span: Span
    confidence: float
    """Minimum of the marginal probabilities of its characters."""


class TitleTagger:
    """Tags spans in titles; made by ``train_tagger``."""

    def __init__(self, model: bytes, names: Gazetteer, context: TitleContext) -> None:
        self.model = model
        self.names = names
        self.context = context
        self._tagger = pycrfsuite.Tagger()
        self._tagger.open_inmemory(model)

    def find(self, title: str) -> list[FoundSpan]:
        """Return the spans of the likeliest tags, in order and without overlaps."""
        if not title:
            return []
        self._tagger.set(items_of(title, self.names, self.context))
        tags = self._tagger.tag()
        return [
            FoundSpan(
                span,
                min(float(self._tagger.marginal(tags[at], at)) for at in range(*span[:2])),
            )
            for span in spans_of(tags)
        ]


def train_tagger(
    titles: Sequence[TaggedTitle], seed: int, iterations: int = _ITERATIONS
) -> TitleTagger:
    """Train a tagger; ``seed`` draws the folds."""
    _check(titles)
    context = TitleContext(list(dict.fromkeys(tagged.title for tagged in titles)))
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c1": _L1, "c2": _L2, "max_iterations": iterations})
    for held, others in _folds(titles, seed):
        names = Gazetteer.learn(others)
        for tagged in held:
            trainer.append(items_of(tagged.title, names, context), tags_of(tagged))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tagger.crfsuite"
        trainer.train(str(path))
        return TitleTagger(path.read_bytes(), Gazetteer.learn(titles), context)


def items_of(title: str, names: Gazetteer, context: TitleContext) -> pycrfsuite.ItemSequence:
    """Return the features of each character, from the title alone and from its context."""
    rows = zip(names.features(title), context.of(title), strict=True)
    return pycrfsuite.ItemSequence([dict.fromkeys(active, 1.0) | values for active, values in rows])


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
    titles: Sequence[TaggedTitle], seed: int
) -> list[tuple[list[TaggedTitle], list[TaggedTitle]]]:
    distinct = list(dict.fromkeys(tagged.title for tagged in titles))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[row]: place % _FOLDS for place, row in enumerate(order)}
    return [
        (
            [tagged for tagged in titles if fold_of[tagged.title] == fold],
            [tagged for tagged in titles if fold_of[tagged.title] != fold],
        )
        for fold in range(_FOLDS)
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
