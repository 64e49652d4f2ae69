"""Words and their phrases in a text: latin words as a whole, Chinese ones by character.

A latin word is folded to lower case and its singular, so that ``Rings`` is ``ring``; a
letter before a hyphen belongs to its word, so that ``T-Shirts`` is ``tshirt``. Words of one
phrase may be parted by spaces, hyphens or apostrophes, never by a comma or a stop.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Found", "PhraseBook", "Token", "phrase_key", "tokens_of"]

_TOKEN = re.compile(
    r"[一-鿿㐀-䶿]|(?:\b[a-zA-Z]-(?=[a-zA-Z])|\b[tT] (?=[sS]hirt))?[^\W_一-鿿㐀-䶿]+"
)
_GLUE = re.compile(r"[\s\-–‐'’&]{0,3}")
_SHORT = 3
"""Words up to this length are taken for singular: ``gas``, ``bus``."""

_PLURAL_ONLY = frozenset({"glasses"})
"""Words whose singular is another thing."""

Entry = TypeVar("Entry")


class Token(NamedTuple):
    """``text[start:end]`` and what it is looked up by."""

    start: int
    end: int
    key: str


class Found(NamedTuple, Generic[Entry]):
    """A phrase of the book at ``text[start:end]``; tokens ``first`` to ``last``."""

    start: int
    end: int
    first: int
    last: int
    entry: Entry


def tokens_of(text: str) -> list[Token]:
    """The words of a text, in order."""
    return [
        Token(match.start(), match.end(), _folded(match.group())) for match in _TOKEN.finditer(text)
    ]


def phrase_key(phrase: str) -> tuple[str, ...]:
    """What a phrase is known by; ``()`` when it has no letters or digits."""
    return tuple(token.key for token in tokens_of(phrase))


class PhraseBook(Generic[Entry]):
    """Finds known phrases in texts.

    Args:
        entries: by ``phrase_key``; the empty key is never found.
    """

    def __init__(self, entries: Mapping[tuple[str, ...], Entry]) -> None:
        self._entries = entries
        lengths: dict[str, set[int]] = {}
        for key in entries:
            if key:
                lengths.setdefault(key[0], set()).add(len(key))
        self._lengths = {word: sorted(found, reverse=True) for word, found in lengths.items()}

    def find(self, text: str, tokens: Sequence[Token]) -> list[Found[Entry]]:
        """From left to right the longest known phrase, none overlapping another.

        Args:
            text: any text.
            tokens: its ``tokens_of``.
        """
        found: list[Found[Entry]] = []
        at = 0
        while at < len(tokens):
            match = self._longest(text, tokens, at)
            if match is None:
                at += 1
            else:
                found.append(match)
                at = match.last + 1
        return found

    def _longest(self, text: str, tokens: Sequence[Token], at: int) -> Found[Entry] | None:
        for length in self._lengths.get(tokens[at].key, ()):
            part = tokens[at : at + length]
            if len(part) < length or not _is_one_phrase(text, part):
                continue
            entry = self._entries.get(tuple(token.key for token in part))
            if entry is not None:
                return Found(part[0].start, part[-1].end, at, at + length - 1, entry)
        return None


def _is_one_phrase(text: str, part: Sequence[Token]) -> bool:
    return all(_GLUE.fullmatch(text, before.end, after.start) for before, after in pairwise(part))


def _folded(word: str) -> str:
    word = word.casefold().replace("-", "").replace(" ", "")
    if (
        len(word) <= _SHORT
        or word in _PLURAL_ONLY
        or not word.endswith("s")
        or word.endswith(("ss", "us", "is"))
    ):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1]
