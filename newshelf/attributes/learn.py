"""Meanings of the words in a catalogue's texts, with their confidences.

Every stated value is a word to look for, in addition to the packaged ones. A word's confidence is
how often it is right where that can be checked, drawn towards what was believed before:

    (right + m · prior) / (found + m),   m = 4

over the products that state the attribute and have the word in a text.

Phrases in which a word does not say what it says elsewhere: ``Red Tape`` is a brand.

Found by counting: where a word stands next to the same neighbour often enough, and is mostly
wrong there, the two together become a phrase of their own, with the confidence of that.

From a classifier's logits to statements with a probability that can be trusted.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017):

    p = softmax(z / T),   T minimises - Σ log p[target] over rows not learned from

What the encoder's heads say of a catalogue, made ready for the knowledge table.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor

from newshelf.attributes.facts import Fact, Texts
from newshelf.attributes.lexicon import (
    ATTRIBUTES,
    NOTHING,
    Lexicon,
    Word,
    fold,
    packaged_lexicon,
    phrase_key,
    tokens_of,
)
from newshelf.catalog.schema import category_levels
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import HeadName

_OFTEN = 6
_MOSTLY_WRONG = 0.3
_LEAST_MENTION_CONFIDENCE = 0.5
"""Words that are right more rarely everywhere need no exception."""

Key = tuple[str, ...]


class _Place(NamedTuple):
    """A word next to a neighbour, and one of its meanings."""

    together: Key
    phrase: Key
    attribute: str
    value: str


def find_exceptions(
    texts: Sequence[tuple[str, Mapping[str, Collection[str]]]], lexicon: Lexicon
) -> list[Word]:
    """Longer phrases that say less than a word in them.

    Args:
        texts: each with the folded values that are right, by attribute; an attribute that
            is absent cannot be checked.
        lexicon: the words, with confidences already counted.
    """
    found: Counter[_Place] = Counter()
    right: Counter[_Place] = Counter()
    for text, said in texts:
        for place in _places(text, lexicon, said):
            found[place] += 1
            right[place] += fold(place.value) in said[place.attribute]
    wrong = {
        place: right[place] / count
        for place, count in found.items()
        if count >= _OFTEN and right[place] / count <= _MOSTLY_WRONG
    }
    return list(_words(wrong, lexicon))


def _places(text: str, lexicon: Lexicon, said: Mapping[str, Collection[str]]) -> Iterator[_Place]:
    tokens = tokens_of(text)
    starts = {token.start: at for at, token in enumerate(tokens)}
    ends = {token.end: at for at, token in enumerate(tokens)}
    mentions = lexicon.find(text)
    # Two values side by side (black and white) are two values, not an exception.
    taken = {
        (mention.attribute, at)
        for mention in mentions
        for at in range(starts[mention.start], ends[mention.end] + 1)
    }
    for mention in mentions:
        if mention.attribute not in said or mention.confidence < _LEAST_MENTION_CONFIDENCE:
            continue
        first, last = starts[mention.start], ends[mention.end]
        phrase = tuple(token.key for token in tokens[first : last + 1])
        for beside in (first - 1, last + 1):
            if 0 <= beside < len(tokens) and (mention.attribute, beside) not in taken:
                neighbour = (tokens[beside].key,)
                key = neighbour + phrase if beside < first else phrase + neighbour
                yield _Place(key, phrase, mention.attribute, mention.value)


def _words(wrong: Mapping[_Place, float], lexicon: Lexicon) -> Iterator[Word]:
    meanings: dict[Key, list[Word]] = {}
    for word in lexicon.words:
        if word.in_text:
            meanings.setdefault(phrase_key(word.phrase), []).append(word)
    for place in wrong:
        text = " ".join(place.together)
        # A phrase that is known already has been counted, and must be found as it is written.
        if place.together in meanings or phrase_key(text) != place.together:
            continue
        yield Word(text, NOTHING, "", 1.0)
        for word in meanings[place.phrase]:
            share = wrong.get(
                _Place(place.together, place.phrase, word.attribute, word.value), word.confidence
            )
            yield word._replace(phrase=text, confidence=round(share, 4))


_STATED_PRIOR = 0.6
"""That a value's own name in a text speaks of the product, before it was counted."""
_HEAD_PRIOR = 0.2
"""The same for the last word of a type, which often belongs to several."""
_WEIGHT = 4.0
_LEAST = 0.05
"""Words that are right more rarely are not kept."""
_LEAST_LETTERS = 2


def learn_lexicon(products: Sequence[Texts], base: Lexicon | None = None) -> Lexicon:
    """The packaged words and those of the catalogue, with confidences counted on it.

    Args:
        products: of one catalogue.
        base: words known before; the packaged ones by default.
    """
    base = base or packaged_lexicon()
    words = _without_repeats([*base.words, *_stated_words(products, base)])
    lexicon = Lexicon(words, base.broader)
    found: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    right: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    checked = [_accepted(lexicon, product) for product in products]
    for product, said in zip(products, checked, strict=True):
        for attribute, value, key in _checkable(lexicon, product, said):
            found[attribute, value, key] += 1
            right[attribute, value, key] += fold(value) in said[attribute]
    counted = Lexicon([*_counted(words, found, right)], base.broader)
    titles = [product.title for product in products]
    exceptions = find_exceptions(list(zip(titles, checked, strict=True)), counted)
    return Lexicon([*counted.words, *exceptions], base.broader)


def _accepted(lexicon: Lexicon, product: Texts) -> dict[str, set[str]]:
    return {
        attribute: accepted_values(lexicon, attribute, values)
        for attribute, values in product.stated.items()
    }


def accepted_values(lexicon: Lexicon, attribute: str, values: Iterable[str]) -> set[str]:
    """Stated values, folded, with all that they imply; of a type, all levels."""
    accepted: set[str] = set()
    for value in values:
        if attribute == "product_type":
            levels = category_levels(value)
            accepted |= {fold(" > ".join(levels[: at + 1])) for at in range(len(levels))}
        else:
            name = lexicon.canonical(attribute, value)
            accepted |= {fold(name), *lexicon.implied(attribute, name)}
    return accepted


def _checkable(
    lexicon: Lexicon, product: Texts, said: Mapping[str, set[str]]
) -> set[tuple[str, str, tuple[str, ...]]]:
    return {
        (mention.attribute, mention.value, phrase_key(text[mention.start : mention.end]))
        for text in (product.title, product.description)
        for mention in lexicon.find(text)
        if mention.attribute in said
    }


def _counted(
    words: Iterable[Word],
    found: Counter[tuple[str, str, tuple[str, ...]]],
    right: Counter[tuple[str, str, tuple[str, ...]]],
) -> Iterator[Word]:
    for word in words:
        key = (word.attribute, word.value, phrase_key(word.phrase))
        confidence = (right[key] + _WEIGHT * word.confidence) / (found[key] + _WEIGHT)
        if not word.in_text or confidence >= _LEAST:
            yield word._replace(confidence=round(confidence, 4))


def _stated_words(products: Sequence[Texts], base: Lexicon) -> Iterator[Word]:
    for attribute in ATTRIBUTES:
        values = dict.fromkeys(
            value for product in products for value in product.stated.get(attribute, ())
        )
        for value in values:
            if attribute == "product_type":
                yield from _type_words(value)
            elif _is_word(value):
                yield Word(value, attribute, base.canonical(attribute, value), _STATED_PRIOR)


def _type_words(path: str) -> Iterator[Word]:
    levels = category_levels(path)
    for depth, level in enumerate(levels, start=1):
        value = " > ".join(levels[:depth])
        if _is_word(level):
            yield Word(level, "product_type", value, _STATED_PRIOR)
        last = level.split()[-1]
        if last != level and _is_word(last):
            yield Word(last, "product_type", value, _HEAD_PRIOR)


def _is_word(phrase: str) -> bool:
    letters = "".join(phrase_key(phrase))
    return len(letters) >= _LEAST_LETTERS and not letters.isdigit()


def _without_repeats(words: Iterable[Word]) -> list[Word]:
    """The first of each phrase and meaning; what is looked for before what is not."""
    kept: dict[tuple[str, str, tuple[str, ...], bool], Word] = {}
    for word in words:
        key = (word.attribute, word.value, phrase_key(word.phrase))
        kept.setdefault((*key, word.in_text), word)
    return [word for key, word in kept.items() if word.in_text or (*key[:3], True) not in kept]


_HOTTEST = 20.0
UNLABELLED = -1


@dataclass(frozen=True)
class HeadReading:
    """Predictions of one encoder head for a catalogue's ``N`` products."""

    attribute: str
    """``color``, ``material`` or ``product_type``."""
    classes: Sequence[str]
    logits: NDArray[np.float32]
    """``(N, len(classes))``."""
    held_out: NDArray[np.int64]
    """``(N,)``: the right class of products that the head did not learn from, -1 elsewhere.
    The temperature is fitted on them; without any, it is 1."""
    speaks_of: NDArray[np.bool_]
    """``(N,)``: the products that the head was made for. A head knows no other class than
    its own, and would name one for any product."""

    def __post_init__(self) -> None:
        rows, width = self.logits.shape
        if width != len(self.classes) or len(self.held_out) != rows or len(self.speaks_of) != rows:
            raise ValueError(
                f"the head {self.attribute}: logits {self.logits.shape} for {len(self.classes)} "
                f"classes, {len(self.held_out)} targets and {len(self.speaks_of)} products"
            )
        if not np.isfinite(self.logits).all():
            raise ValueError(f"the head {self.attribute} has logits that are not finite")


def fit_temperature(logits: NDArray[np.float32], target: NDArray[np.int64]) -> float:
    """The temperature that makes the probabilities fit.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``, -1 for rows to leave out.

    Returns:
        Between 1/20 and 20; 1 when there is no row to fit.
    """
    rows = target != UNLABELLED
    if not rows.any():
        return 1.0
    scores, right = logits[rows].astype(np.float64), target[rows]

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(log_p[np.arange(len(right)), right].mean())

    bound = float(np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def head_facts(ids: Sequence[str], reading: HeadReading, least: float) -> Iterator[Fact]:
    """The likeliest class of each product, where its probability is at least ``least``."""
    temperature = fit_temperature(reading.logits, reading.held_out)
    probability = softmax(reading.logits.astype(np.float64) / temperature, axis=1)
    best = probability.argmax(axis=1)
    for row in np.flatnonzero(reading.speaks_of).tolist():
        confidence = float(probability[row, best[row]])
        if confidence >= least:
            value = reading.classes[best[row]]
            yield Fact(ids[row], reading.attribute, value, "picture+text model", confidence)


_ATTRIBUTES: dict[HeadName, str] = {
    "source_type": "product_type",
    "target_type": "product_type",
    "color": "color",
    "material": "material",
}


def encoder_readings(
    encoder: Encoder,
    embeddings: Tensor,
    held_out: Mapping[HeadName, Tensor],
    speaks_of: Mapping[HeadName, Tensor],
) -> list[HeadReading]:
    """Logits of every head for every product.

    Args:
        encoder: trained.
        embeddings: ``(N, 512)``, the encoder's own, in the catalogue's order.
        held_out: by head, ``(N,)`` int64: the class of products that the head did not learn
            from, -1 elsewhere; a head that is absent is not calibrated.
        speaks_of: by head, ``(N,)`` bool: the products that it may name; a head that is
            absent names all. For the two heads of types, give each its own category and
            the products without a type.
    """
    count = len(embeddings)
    nobody = torch.full((count,), UNLABELLED, dtype=torch.int64)
    everybody = torch.ones(count, dtype=torch.bool)
    readings: list[HeadReading] = []
    for head in encoder.head_names:
        with torch.inference_mode():
            logits = encoder.heads[head](embeddings).float().cpu().numpy()
        readings.append(
            HeadReading(
                attribute=_ATTRIBUTES[head],
                classes=encoder.spec.labels[head],
                logits=logits.astype(np.float32),
                held_out=held_out.get(head, nobody).cpu().numpy(),
                speaks_of=speaks_of.get(head, everybody).cpu().numpy(),
            )
        )
    return readings
