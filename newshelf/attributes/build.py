"""Facts about a catalogue's products: a learned lexicon, the encoder's heads, and their table.

The lexicon has the packaged words and every stated value. A word's confidence is the share of
products for which it is right, among those that state the attribute and have the word in a text,
smoothed with a prior::

    (right + m · prior) / (found + m),   m = 4

Phrases are exceptions (``Red Tape`` is a brand) if a word next to the same neighbour is frequent
and mostly wrong.

Probabilities of heads are calibrated by temperature scaling (Guo et al., "On Calibration of
Modern Neural Networks", ICML 2017)::

    p = softmax(z / T),   T minimises - Σ log p[target] over held-out rows

``knowledge.parquet`` has one row per fact::

    item_id      the product
    attribute    product_type, brand, color, material, style; from a tagger also model, other
    value        canonical: 红色 and red are "red"
    source       stated, title, description, tagger, "picture+text model", implied
    confidence   0 … 1
    start, end   characters of the title or description; null for other sources
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from newshelf.attributes.lexicon import (
    ATTRIBUTES,
    NOTHING,
    Fact,
    Lexicon,
    Texts,
    Word,
    fold,
    implied,
    merge,
    packaged_lexicon,
    phrase_key,
    statements,
    tokens_of,
    type_names,
)
from newshelf.attributes.title_tagger import TitleTagger
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.errors import CatalogError
from newshelf.files import directory_aside, write_aside

_OFTEN = 6
_MOSTLY_WRONG = 0.3
_LEAST_MENTION_CONFIDENCE = 0.5
"""Words with less confidence need no exception."""

Key = tuple[str, ...]
_Meaning = tuple[str, str, Key]
"""Attribute, value and phrase."""


class _Context(NamedTuple):
    """A phrase with a neighbouring word, and one of its meanings."""

    together: Key
    phrase: Key
    attribute: str
    value: str


def find_exceptions(
    texts: Sequence[tuple[str, Mapping[str, Collection[str]]]], lexicon: Lexicon
) -> list[Word]:
    """Return phrases without a word's usual meaning, of texts with their folded right values."""
    found, right = Counter[_Context](), Counter[_Context]()
    for text, said in texts:
        for place in _contexts(text, lexicon, said):
            found[place] += 1
            right[place] += fold(place.value) in said[place.attribute]
    wrong = {
        place: right[place] / count
        for place, count in found.items()
        if count >= _OFTEN and right[place] / count <= _MOSTLY_WRONG
    }
    return list(_words(wrong, lexicon))


def _contexts(
    text: str, lexicon: Lexicon, said: Mapping[str, Collection[str]]
) -> Iterator[_Context]:
    tokens = tokens_of(text)
    starts = {token.start: at for at, token in enumerate(tokens)}
    ends = {token.end: at for at, token in enumerate(tokens)}
    mentions = lexicon.find(text)
    # Two neighbouring values (black and white) are no exception.
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
        for place in (first - 1, last + 1):
            if 0 <= place < len(tokens) and (mention.attribute, place) not in taken:
                neighbour = (tokens[place].key,)
                key = neighbour + phrase if place < first else phrase + neighbour
                yield _Context(key, phrase, mention.attribute, mention.value)


def _words(wrong: Mapping[_Context, float], lexicon: Lexicon) -> Iterator[Word]:
    meanings: dict[Key, list[Word]] = {}
    for word in lexicon.words:
        if word.in_text:
            meanings.setdefault(phrase_key(word.phrase), []).append(word)
    for place in wrong:
        text = " ".join(place.together)
        # Known phrases have been counted already; others must be found as written.
        if place.together in meanings or phrase_key(text) != place.together:
            continue
        yield Word(text, NOTHING, "", 1.0)
        for word in meanings[place.phrase]:
            share = wrong.get(
                _Context(place.together, place.phrase, word.attribute, word.value), word.confidence
            )
            yield word._replace(phrase=text, confidence=round(share, 4))


_STATED_PRIOR = 0.6
"""Prior confidence of a value's name in a text."""
_HEAD_PRIOR = 0.2
"""Prior confidence of the last word of a type, which several types often share."""
_WEIGHT = 4.0
_LEAST = 0.05
"""Words below this confidence are dropped."""
_LEAST_LETTERS = 2


def learn_lexicon(products: Sequence[Texts]) -> Lexicon:
    """Return the packaged words and those of the catalogue, with confidences."""
    base = packaged_lexicon()
    words = _without_repeats([*base.words, *_stated_words(products, base)])
    lexicon = Lexicon(words, base.broader)
    found, right = Counter[_Meaning](), Counter[_Meaning]()
    checked = [
        {name: accepted_values(lexicon, name, values) for name, values in product.stated.items()}
        for product in products
    ]
    for product, said in zip(products, checked, strict=True):
        meanings = {
            (mention.attribute, mention.value, phrase_key(text[mention.start : mention.end]))
            for text in (product.title, product.description)
            for mention in lexicon.find(text)
            if mention.attribute in said
        }
        for attribute, value, key in meanings:
            found[attribute, value, key] += 1
            right[attribute, value, key] += fold(value) in said[attribute]
    counted = Lexicon([*_counted(words, found, right)], base.broader)
    titles = [product.title for product in products]
    exceptions = find_exceptions(list(zip(titles, checked, strict=True)), counted)
    return Lexicon([*counted.words, *exceptions], base.broader)


def accepted_values(lexicon: Lexicon, attribute: str, values: Iterable[str]) -> set[str]:
    """Return the folded stated values with all that they imply; for types, all levels."""
    accepted: set[str] = set()
    for value in values:
        if attribute == "product_type":
            levels = category_levels(value)
            accepted |= {fold(" > ".join(levels[: at + 1])) for at in range(len(levels))}
        else:
            name = lexicon.canonical(attribute, value)
            accepted |= {fold(name), *lexicon.implied(attribute, name)}
    return accepted


def _counted(
    words: Iterable[Word],
    found: Counter[_Meaning],
    right: Counter[_Meaning],
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
        levels = {phrase_key(level) for value in values for level in category_levels(value)}
        for value in values:
            if attribute == "product_type":
                yield from _type_words(value, levels)
            elif _is_word(value):
                yield Word(value, attribute, base.canonical(attribute, value), _STATED_PRIOR)


def _type_words(path: str, stated: Collection[Key]) -> Iterator[Word]:
    """Yield the names of a type's levels, and their synonyms that are not ``stated`` types."""
    levels = category_levels(path)
    for depth, level in enumerate(levels, start=1):
        value = " > ".join(levels[:depth])
        if _is_word(level):
            yield Word(level, "product_type", value, _STATED_PRIOR)
        last = level.split()[-1]
        if last != level and _is_word(last):
            yield Word(last, "product_type", value, _HEAD_PRIOR)
        for name in type_names().get(phrase_key(level), ()):
            if phrase_key(name) not in stated:
                yield Word(name, "product_type", value, _STATED_PRIOR)


def _is_word(phrase: str) -> bool:
    letters = "".join(phrase_key(phrase))
    return len(letters) >= _LEAST_LETTERS and not letters.isdigit()


def _without_repeats(words: Iterable[Word]) -> list[Word]:
    """Return the first word of each phrase and meaning, preferring those found in texts."""
    kept: dict[tuple[_Meaning, bool], Word] = {}
    for word in words:
        meaning = (word.attribute, word.value, phrase_key(word.phrase))
        kept.setdefault((meaning, word.in_text), word)
    return [word for (key, _), word in kept.items() if word.in_text or (key, True) not in kept]


_MAX_TEMPERATURE = 20.0
UNLABELLED = -1


@dataclass(frozen=True)
class HeadPredictions:
    """Predictions of one encoder head for a catalogue's ``N`` products."""

    attribute: str
    """``color``, ``material`` or ``product_type``."""
    classes: Sequence[str]
    logits: NDArray[np.float32]
    """``(N, len(classes))``."""
    held_out: NDArray[np.int64]
    """``(N,)``: the true class of held-out products, -1 elsewhere. The temperature is fitted on
    them; without any, it is 1."""
    applies_to: NDArray[np.bool_]
    """``(N,)``: products that the head is for; it predicts one of its classes for any product."""


def fit_temperature(logits: NDArray[np.float32], target: NDArray[np.int64]) -> float:
    """Return the temperature, 1/20 to 20, that minimises the log loss; 1 without rows to fit.

    ``logits`` are ``(N, C)``; ``target`` ``(N,)`` is -1 for rows to ignore.
    """
    rows = target != UNLABELLED
    if not rows.any():
        return 1.0
    scores, right = logits[rows].astype(np.float64), target[rows]

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(log_p[np.arange(len(right)), right].mean())

    bound = float(np.log(_MAX_TEMPERATURE))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def head_facts(
    ids: Sequence[str], predictions: HeadPredictions, min_confidence: float
) -> Iterator[Fact]:
    """Yield the likeliest class of each product, if its probability is high enough."""
    temperature = fit_temperature(predictions.logits, predictions.held_out)
    probability = softmax(predictions.logits.astype(np.float64) / temperature, axis=1)
    best = probability.argmax(axis=1)
    for row in np.flatnonzero(predictions.applies_to).tolist():
        confidence = float(probability[row, best[row]])
        if confidence >= min_confidence:
            value = predictions.classes[best[row]]
            yield Fact(ids[row], predictions.attribute, value, "picture+text model", confidence)


FACTS_FILE, LEXICON_FILE = "knowledge.parquet", "lexicon.json"

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("confidence", pa.float64()),
        ("start", pa.int32()),
        ("end", pa.int32()),
    ]
)


def write_facts(facts: Sequence[Fact], path: Path) -> None:
    """Write the table atomically."""
    rows = [fact._asdict() for fact in facts]
    with write_aside(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), aside)


def read_facts(path: Path) -> pa.Table:
    """Read the table."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CatalogError(f"the knowledge table {path} cannot be read: {error}") from error
    if not table.schema.equals(_SCHEMA):
        raise CatalogError(f"{path} has other columns than this version writes: train again")
    return table


_ATTRIBUTES = {"HCCX": "product_type", "HPPX": "brand", "XH": "model", "MISC": "other"}
"""Labels of the public Chinese shop titles; other labels are names of attributes."""


def tagged_facts(item: str, title: str, tagger: TitleTagger, lexicon: Lexicon) -> Iterator[Fact]:
    """Yield the tagger's facts; of spans of unknown attributes, the lexicon's or ``other``."""
    for (start, end, label), confidence in tagger.find(title):
        attribute = _ATTRIBUTES.get(label, label)
        text = title[start:end]
        if attribute == "other" and lexicon.find(text):
            continue
        value = lexicon.canonical(attribute, text)
        yield Fact(item, attribute, value, "tagger", min(confidence, 1.0), start, end)


_MIN_CONFIDENCE = 0.3
"""Facts below this confidence are dropped."""


@dataclass(frozen=True)
class Knowledge:
    """Facts about a catalogue's products."""

    lexicon: Lexicon
    facts: Sequence[Fact]


def build_knowledge(
    catalog: Catalog,
    out: Path,
    *,
    heads: Sequence[HeadPredictions] = (),
    tagger: TitleTagger | None = None,
) -> Knowledge:
    """Collect and write the facts from columns, texts and the encoder for every product.

    ``out`` is replaced atomically. Rows of the heads are in the catalogue's order.
    """
    texts = catalog_texts(catalog)
    lexicon = learn_lexicon(texts)
    ids = [str(item) for item in catalog.items["id"]]
    for head in heads:
        if len(head.logits) != len(ids):
            raise ValueError(
                f"the head {head.attribute} has {len(head.logits)} products, and the "
                f"catalogue {len(ids)}"
            )
    facts: list[Fact] = []
    for item, text in zip(ids, texts, strict=True):
        facts += statements(item, text, lexicon)
        if tagger is not None:
            facts += tagged_facts(item, text.title, tagger, lexicon)
    for head in heads:
        facts += [
            fact._replace(value=lexicon.canonical(fact.attribute, fact.value))
            for fact in head_facts(ids, head, _MIN_CONFIDENCE)
        ]
    facts += [wider for fact in facts for wider in implied(fact, lexicon)]
    knowledge = Knowledge(lexicon, [f for f in merge(facts) if f.confidence >= _MIN_CONFIDENCE])
    with directory_aside(out) as folder:
        write_facts(knowledge.facts, folder / FACTS_FILE)
        lexicon.write(folder / LEXICON_FILE)
    return knowledge


def catalog_texts(catalog: Catalog) -> list[Texts]:
    """Return each product's texts and stated values, in the catalogue's order."""
    names = ["title", "description", *(name for name in ATTRIBUTES if name in catalog.items)]
    return [Texts.of(row) for row in catalog.rows(names)]
