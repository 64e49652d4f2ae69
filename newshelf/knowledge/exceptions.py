"""Phrases in which a word does not say what it says elsewhere: ``Red Tape`` is a brand.

Found by counting: where a word stands beside the same neighbour often enough, and is mostly
wrong there, the two together become a phrase of their own, with the confidence of that.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from newshelf.knowledge.lexicon import NOTHING, Lexicon, Word, fold
from newshelf.knowledge.phrases import phrase_key, tokens_of

__all__ = ["find_exceptions"]

_OFTEN = 6
_MOSTLY_WRONG = 0.3
_LEAST = 0.5
"""Words that are right more rarely everywhere need no exception."""

Key = tuple[str, ...]


class _Place(NamedTuple):
    """A word beside a neighbour, and one thing that it says."""

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
        if mention.attribute not in said or mention.confidence < _LEAST:
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
