"""Which words of a catalogue's texts say what, and how far they can be trusted.

Every stated value is a word to look for, beside the packaged ones. A word's confidence is
how often it is right where that can be checked, drawn towards what was believed before:

    (right + m · prior) / (found + m),   m = 4

over the products that state the attribute and have the word in a text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from newshelf.catalog.schema import category_levels
from newshelf.knowledge.exceptions import find_exceptions
from newshelf.knowledge.lexicon import ATTRIBUTES, Lexicon, Word, fold
from newshelf.knowledge.phrases import phrase_key
from newshelf.knowledge.statements import Texts
from newshelf.knowledge.vocabulary import packaged_lexicon

__all__ = ["accepted_values", "learn_lexicon"]

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
