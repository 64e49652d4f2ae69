"""What words say of a product: ``红色`` and ``scarlet`` that it is red.

Read by serving, so it loads neither torch nor a table reader.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from newshelf.errors import WeightsError
from newshelf.files import read_json, write_aside
from newshelf.knowledge.phrases import Found, PhraseBook, Token, phrase_key, tokens_of

__all__ = ["ATTRIBUTES", "NOTHING", "Lexicon", "Mention", "Word", "fold", "read_lexicon"]

ATTRIBUTES = ("product_type", "brand", "color", "material", "style")
"""What is known of products, and can be filtered by."""

NOTHING = "-"
"""The attribute of phrases that say none of what their words would: ``olive oil``."""

_DENIED_BY_WORD_BEFORE = frozenset(
    {"no", "not", "non", "without", "never", "sans", "imitation", "fake", "faux", "无", "非", "不"}
    | {"免", "仿"}
)
_DENIED_BY_WORD_AFTER = frozenset(
    {"free", "look", "effect", "like", "tone", "plated", "imitation"} | {"backdrop", "background"}
)
_FORMAT = 1


class Word(NamedTuple):
    """A word or phrase, and one thing it says."""

    phrase: str
    attribute: str
    value: str
    confidence: float
    """That a product is so when its text has the phrase."""
    in_text: bool = True
    """False for a word that is understood in a filter only."""


class Mention(NamedTuple):
    """``text[start:end]`` says that the product's ``attribute`` is ``value``."""

    start: int
    end: int
    attribute: str
    value: str
    confidence: float


@dataclass(frozen=True)
class Lexicon:
    """Words with their meanings."""

    words: Sequence[Word]
    broader: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Attribute → value → the wider value that it implies: ``navy`` is ``blue``."""

    @cached_property
    def _book(self) -> PhraseBook[list[Word]]:
        entries: dict[tuple[str, ...], list[Word]] = {}
        for word in self.words:
            if word.in_text:
                entries.setdefault(phrase_key(word.phrase), []).append(word)
        return PhraseBook(entries)

    @cached_property
    def _values(self) -> Mapping[tuple[str, tuple[str, ...]], str]:
        values: dict[tuple[str, tuple[str, ...]], str] = {}
        # A value's own name wins over a word that merely hints at it; so does the surer word.
        ordered = sorted(self.words, key=lambda word: (fold(word.phrase) != word.value, -word[3]))
        for word in ordered:
            values.setdefault((word.attribute, phrase_key(word.phrase)), word.value)
        return values

    def find(self, text: str) -> list[Mention]:
        """What the text says, in order; what it denies (``without leather``) is left out.

        Of overlapping phrases the longest counts: ``faux leather`` is not leather, and
        ``rose gold`` neither a rose nor gold. One phrase may say several things.
        """
        tokens = tokens_of(text)
        found = self._book.find(text, tokens)
        return list(_mentions(match for match in found if not _denied(text, tokens, match)))

    def canonical(self, attribute: str, value: str) -> str:
        """The one name of a value: ``"Navy Blue"`` → ``"navy"``; unknown ones are folded.

        Types and brands keep their own spelling.
        """
        if attribute in ("product_type", "brand"):
            return value.strip()
        return self._values.get((attribute, phrase_key(value)), fold(value))

    def implied(self, attribute: str, value: str) -> list[str]:
        """All wider values, nearest first: ``"navy"`` → ``["blue"]``."""
        wider = self.broader.get(attribute, {})
        chain: list[str] = []
        while (value := wider.get(value, "")) and value not in chain:
            chain.append(value)
        return chain

    def write(self, path: Path) -> None:
        """Write as JSON, aside and renamed."""
        with write_aside(path) as aside:
            body = {
                "format": _FORMAT,
                "words": [list(word) for word in self.words],
                "broader": {name: dict(wider) for name, wider in self.broader.items()},
            }
            aside.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")


def fold(value: str) -> str:
    """How values are compared: ``" Red "`` is ``"red"``."""
    return value.strip().lower()


def read_lexicon(path: Path) -> Lexicon:
    """Read what ``Lexicon.write`` wrote.

    Raises:
        WeightsError: it is missing, damaged or of another format.
    """
    try:
        body = read_json(path)
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']} instead of {_FORMAT}")
        words = [
            Word(str(phrase), str(attribute), str(value), float(confidence), bool(in_text))
            for phrase, attribute, value, confidence, in_text in body["words"]
        ]
        broader = {str(name): dict(wider) for name, wider in body["broader"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read: {error!r}; train again") from error
    return Lexicon(words, broader)


def _mentions(found: Iterable[Found[list[Word]]]) -> Iterable[Mention]:
    for match in found:
        for word in match.entry:
            if word.attribute == NOTHING:
                continue
            yield Mention(match.start, match.end, *word[1:4])


def _denied(text: str, tokens: Sequence[Token], match: Found[list[Word]]) -> bool:
    before = tokens[match.first - 1] if match.first else None
    if before and before.key in _DENIED_BY_WORD_BEFORE and _near(text, before.end, match.start):
        return True
    after = tokens[match.last + 1] if match.last + 1 < len(tokens) else None
    return bool(
        after and after.key in _DENIED_BY_WORD_AFTER and _near(text, match.end, after.start)
    )


def _near(text: str, end: int, start: int) -> bool:
    return text[end:start].strip(" -–") == ""
