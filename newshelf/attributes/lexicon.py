"""Lexicon of words and phrases for attributes: ``红色`` and ``scarlet`` mean red.

Chinese text has a token per character, Latin text a token per word, folded to lower case and
singular: ``Rings`` is ``ring``, ``T-Shirts`` is ``tshirt``. Spaces, hyphens and apostrophes may
separate the words of a phrase; commas and stops may not. So the longest phrases, from left to
right, segment Chinese text. The packaged lexicon has colours, materials, styles and names of types
in English and Chinese.

Facts about products are extracted from fields and texts, and merged by confidence. Serving uses
this module, so it imports neither torch nor a table reader.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from newshelf.catalog.schema import category_levels, split_values
from newshelf.errors import WeightsError
from newshelf.files import StrictModel, write_aside

_TOKEN = re.compile(
    r"[一-鿿㐀-䶿]|(?:\b[a-zA-Z]-(?=[a-zA-Z])|\b[tT] (?=[sS]hirt))?[^\W_一-鿿㐀-䶿]+"
)
_GLUE = re.compile(r"[\s\-–‐'’&]{0,3}")
_SHORT = 3
"""Words up to this length count as singular: ``gas``, ``bus``."""

_PLURAL_ONLY = frozenset({"glasses"})
"""Words whose singular has another meaning."""

Entry = TypeVar("Entry")


class Token(NamedTuple):
    """``text[start:end]`` and its key."""

    start: int
    end: int
    key: str


class PhraseMatch(NamedTuple, Generic[Entry]):
    """A known phrase at ``text[start:end]``, tokens ``first`` to ``last``."""

    start: int
    end: int
    first: int
    last: int
    entry: Entry


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text, in order."""
    return [
        Token(match.start(), match.end(), _folded(match.group())) for match in _TOKEN.finditer(text)
    ]


def phrase_key(phrase: str) -> tuple[str, ...]:
    """Return the key of a phrase; ``()`` if it has no letters or digits."""
    return tuple(token.key for token in tokens_of(phrase))


class PhraseBook(Generic[Entry]):
    """Finds known phrases in texts; entries are by ``phrase_key``."""

    def __init__(self, entries: Mapping[tuple[str, ...], Entry]) -> None:
        self._entries = entries
        lengths: dict[str, set[int]] = {}
        for key in entries:
            if key:
                lengths.setdefault(key[0], set()).add(len(key))
        self._lengths = {word: sorted(found, reverse=True) for word, found in lengths.items()}

    def find(self, text: str, tokens: Sequence[Token]) -> list[PhraseMatch[Entry]]:
        """Return the longest known phrases from left to right, without overlaps."""
        found: list[PhraseMatch[Entry]] = []
        at = 0
        while at < len(tokens):
            match = self._longest(text, tokens, at)
            if match is None:
                at += 1
            else:
                found.append(match)
                at = match.last + 1
        return found

    def _longest(self, text: str, tokens: Sequence[Token], at: int) -> PhraseMatch[Entry] | None:
        for length in self._lengths.get(tokens[at].key, ()):
            part = tokens[at : at + length]
            glued = all(_GLUE.fullmatch(text, one.end, two.start) for one, two in pairwise(part))
            if len(part) < length or not glued:
                continue
            entry = self._entries.get(tuple(token.key for token in part))
            if entry is not None:
                return PhraseMatch(part[0].start, part[-1].end, at, at + length - 1, entry)
        return None


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


ATTRIBUTES = ("product_type", "brand", "color", "material", "style")
"""Attributes that can be filtered by."""

NOTHING = "-"
"""Attribute of phrases without the meaning of their words: ``olive oil``."""

_NEGATED_BY_WORD_BEFORE = frozenset(
    {"no", "not", "non", "without", "never", "sans", "imitation", "fake", "faux", "无", "非", "不"}
    | {"免", "仿"}
)
_NEGATED_BY_TEXT_BEFORE = ("不要", "不含", "不是", "不带", "没有", "除了")
_NEGATED_BY_WORD_AFTER = frozenset(
    {"free", "look", "effect", "like", "tone", "plated", "imitation"} | {"backdrop", "background"}
)


class Word(NamedTuple):
    """A word or phrase with one meaning."""

    phrase: str
    attribute: str
    value: str
    confidence: float
    """Probability that a product with the phrase in a text has the value."""
    in_text: bool = True
    """False for words that only filters accept."""


class Mention(NamedTuple):
    """``text[start:end]`` means that ``attribute`` is ``value``."""

    start: int
    end: int
    attribute: str
    value: str
    confidence: float


@dataclass(frozen=True)
class Lexicon:
    """Words and phrases with their meanings."""

    words: Sequence[Word]
    broader: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Attribute → value → the broader value that it implies: ``navy`` → ``blue``."""

    @cached_property
    def _book(self) -> PhraseBook[list[Word]]:
        entries: dict[tuple[str, ...], list[Word]] = {}
        for word in self.words:
            if word.in_text:
                entries.setdefault(phrase_key(word.phrase), []).append(word)
        return PhraseBook(entries)

    @cached_property
    def _characters(self) -> Mapping[str, list[Word]]:
        characters: dict[str, list[Word]] = {}
        # A gold ring is made of gold, and only perhaps golden.
        for word in sorted(self.words, key=lambda word: word.attribute != "material"):
            if not word.in_text and len(word.phrase) == 1:
                characters.setdefault(word.phrase, []).append(word)
        return characters

    @cached_property
    def _values(self) -> Mapping[tuple[str, tuple[str, ...]], str]:
        values: dict[tuple[str, tuple[str, ...]], str] = {}
        # The name of a value takes precedence over other words, then the confident word.
        ordered = sorted(self.words, key=lambda word: (fold(word.phrase) != word.value, -word[3]))
        for word in ordered:
            values.setdefault((word.attribute, phrase_key(word.phrase)), word.value)
        return values

    def find(self, text: str) -> list[Mention]:
        """Return the facts in a text, in order, without negated ones (``without leather``).

        Of overlapping phrases the longest counts: ``faux leather`` is not leather, ``rose gold``
        neither a rose nor gold. A phrase may have several meanings.
        """
        tokens = tokens_of(text)
        found = self._book.find(text, tokens)
        found = sorted([*found, *self._before_types(tokens, found)], key=lambda match: match.start)
        return [
            Mention(match.start, match.end, *word[1:4])
            for match in found
            if not _negated(text, tokens, match)
            for word in match.entry
            if word.attribute != NOTHING
        ]

    def _before_types(
        self, tokens: Sequence[Token], found: Sequence[PhraseMatch[list[Word]]]
    ) -> Iterator[PhraseMatch[list[Word]]]:
        """Yield characters before a type, which alone are ambiguous: ``红`` in ``红皮鞋``."""
        last = -1
        for match in found:
            if any(word.attribute == "product_type" for word in match.entry):
                for at in range(match.first - 1, last, -1):
                    start, end, key = tokens[at]
                    if end != tokens[at + 1].start or key not in self._characters:
                        break
                    yield PhraseMatch(start, end, at, at, self._characters[key])
            last = match.last

    def canonical(self, attribute: str, value: str) -> str:
        """Return ``"navy"`` for ``"Navy Blue"``; fold unknown values, but not types and brands."""
        if attribute in ("product_type", "brand"):
            return value.strip()
        return self._values.get((attribute, phrase_key(value)), fold(value))

    def implied(self, attribute: str, value: str) -> list[str]:
        """Return all broader values, nearest first: ``"navy"`` → ``["blue"]``."""
        wider = self.broader.get(attribute, {})
        chain: list[str] = []
        while (value := wider.get(value, "")) and value not in chain:
            chain.append(value)
        return chain

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        body = _LexiconFile(format=1, words=self.words, broader=self.broader)
        with write_aside(path) as aside:
            aside.write_text(body.model_dump_json(), encoding="utf-8")


class _LexiconFile(StrictModel):
    format: Literal[1]
    words: Sequence[Word]
    broader: Mapping[str, Mapping[str, str]]


def fold(value: str) -> str:
    """Normalise a value for comparison: ``" Red "`` is ``"red"``."""
    return value.strip().lower()


def read_lexicon(path: Path) -> Lexicon:
    """Read a file of ``Lexicon.write``."""
    try:
        body = _LexiconFile.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error!r}; train again") from error
    return Lexicon(body.words, body.broader)


def _negated(text: str, tokens: Sequence[Token], match: PhraseMatch[list[Word]]) -> bool:
    before = tokens[match.first - 1] if match.first else None
    if before and before.key in _NEGATED_BY_WORD_BEFORE and _near(text, before.end, match.start):
        return True
    if text[: match.start].endswith(_NEGATED_BY_TEXT_BEFORE):
        return True
    after = tokens[match.last + 1] if match.last + 1 < len(tokens) else None
    return bool(
        after and after.key in _NEGATED_BY_WORD_AFTER and _near(text, match.end, after.start)
    )


def _near(text: str, end: int, start: int) -> bool:
    return text[end:start].strip(" -–") == ""


_FILE = "vocabulary.tsv"
PACKAGED_CONFIDENCE = 0.8
"""Prior confidence of a packaged word, measured by the benchmark ``titles``."""


class _Row(NamedTuple):
    attribute: str
    value: str
    broader: str
    phrases: Sequence[str]


@cache
def _vocabulary() -> Sequence[_Row]:
    text = (files("newshelf.attributes") / _FILE).read_text(encoding="utf-8")
    cells = [line.split("\t") for line in text.splitlines() if line and line[0] != "#"]
    return [_Row(name, value, wider, words.split("|")) for name, value, wider, words in cells]


@cache
def packaged_lexicon() -> Lexicon:
    """Return the colours, materials and styles of ``vocabulary.tsv``."""
    words: list[Word] = []
    broader: dict[str, dict[str, str]] = {}
    for attribute, value, wider, phrases in _vocabulary():
        if attribute == "product_type":
            continue
        if wider:
            broader.setdefault(attribute, {})[value] = wider
        # Filters accept a value's name, even if texts are not searched for it.
        named = [f"~{value}"] if value else []
        words += [
            Word(phrase.lstrip("~"), attribute, value, PACKAGED_CONFIDENCE, phrase[0] != "~")
            for phrase in (*named, *phrases)
        ]
    return Lexicon(words, broader)


@cache
def type_names() -> Mapping[tuple[str, ...], Sequence[str]]:
    """Return the names of a type by the key of each: ``rings``, ``finger ring``, ``戒指``."""
    groups = [(row.value, *row.phrases) for row in _vocabulary() if row.attribute == "product_type"]
    return {phrase_key(name): names for names in groups for name in names}


FactSource = Literal["stated", "title", "description", "tagger", "picture+text model", "implied"]

SINGLE_VALUED = ("product_type", "brand")
"""Attributes with one value per product, so that other values contradict a stated one."""

_DOUBT = 0.5
"""Factor of the confidence in a value that contradicts a stated one."""


class Fact(NamedTuple):
    """A fact about a product; the columns of ``knowledge.parquet``."""

    item_id: str
    attribute: str
    value: str
    source: FactSource
    confidence: float
    start: int | None = None
    end: int | None = None


def merge(facts: Iterable[Fact]) -> list[Fact]:
    """Return one fact per product, attribute and value, from the most confident source.

    If a single-valued attribute is stated, the confidence in other values is halved, unless both
    are levels of one path. Facts are by decreasing confidence within an attribute.
    """
    best: dict[tuple[str, str, str], Fact] = {}
    for fact in facts:
        key = (fact.item_id, fact.attribute, fold(fact.value))
        if key not in best or fact.confidence > best[key].confidence:
            best[key] = fact
    stated: dict[tuple[str, str], str] = {
        (item, attribute): value
        for (item, attribute, value), fact in best.items()
        if fact.source == "stated" and attribute in SINGLE_VALUED
    }
    order = {item: place for place, item in enumerate(dict.fromkeys(key[0] for key in best))}
    rows = [_doubted(fact, stated.get((fact.item_id, fact.attribute))) for fact in best.values()]
    return sorted(
        rows,
        key=lambda fact: (order[fact.item_id], fact.attribute, -fact.confidence, fact.value),
    )


def _doubted(fact: Fact, stated: str | None) -> Fact:
    value = fold(fact.value)
    if stated is None or value == stated or stated.startswith(f"{value} > "):
        return fact
    return fact._replace(confidence=fact.confidence * _DOUBT)


_IMPLIED = 0.95
"""Factor of the confidence per step from a value to a broader one."""
_DESCRIBED = 0.85
"""Factor for descriptions, which mention more than the product itself."""


@dataclass(frozen=True)
class Texts:
    """A product's texts and its stated values by attribute."""

    title: str
    description: str = ""
    stated: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, str | None]) -> "Texts":
        """Return the texts of a product's fields by name; fields may be None or absent."""
        stated = {name: stated_values(name, row.get(name)) for name in ATTRIBUTES}
        return cls(
            title=row.get("title") or "",
            description=row.get("description") or "",
            stated={name: values for name, values in stated.items() if values},
        )


def stated_values(attribute: str, cell: str | None) -> list[str]:
    """Return the values of a cell: several colours, materials or styles, one type or brand."""
    if cell is None or not cell.strip():
        return []
    if attribute == "product_type":
        return [" > ".join(category_levels(cell))]
    if attribute == "brand":
        return [cell.strip()]
    return list(dict.fromkeys(split_values(cell)))


def statements(item: str, texts: Texts, lexicon: Lexicon) -> Iterator[Fact]:
    """Yield the facts from fields, title and description."""
    for attribute, values in texts.stated.items():
        for value in values:
            yield Fact(item, attribute, lexicon.canonical(attribute, value), "stated", 1.0)
    sources: tuple[tuple[FactSource, str, float], ...] = (
        ("title", texts.title, 1.0),
        ("description", texts.description, _DESCRIBED),
    )
    for source, text, factor in sources:
        for start, end, attribute, value, confidence in lexicon.find(text):
            yield Fact(item, attribute, value, source, confidence * factor, start, end)


def implied(fact: Fact, lexicon: Lexicon) -> Iterator[Fact]:
    """Yield the broader values that a fact implies, with less confidence at each step."""
    for steps, value in enumerate(lexicon.implied(fact.attribute, fact.value), start=1):
        confidence = fact.confidence * _IMPLIED**steps
        yield Fact(fact.item_id, fact.attribute, value, "implied", confidence)
