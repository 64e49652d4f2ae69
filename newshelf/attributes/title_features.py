"""Tagged titles, and the features of their characters for the tagger.

Features come from the characters around, and from a gazetteer of names in tagged titles, which
alone is the baseline of a tagger.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newshelf.errors import TrainingError
from newshelf.files import problems


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
            for label, count in [_most_common(counts)]
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
        ends: dict[int, Match] = {}
        for match in self.all_matches(title):
            if match.share >= least_share:
                # The ends of one start are in increasing order.
                ends[match.start] = match
        return list(_from_left(ends.get(at) for at in range(len(title))))

    def tag(self, title: str, least_share: float = 0.0) -> list[Span]:
        """Return the longest matches as spans."""
        return [Span(*match[:3]) for match in self.longest_matches(title, least_share)]


def _from_left(matches: Iterable[Match | None]) -> Iterable[Match]:
    end = 0
    for match in matches:
        if match is not None and match.start >= end:
            yield match
            end = match.end


def _most_common(counts: Counter[str]) -> tuple[str, int]:
    # Ties are broken alphabetically, independent of the order of titles.
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


_LONG = 6
"""Longer names count as this length."""
_SHARES = (0.2, 0.4, 0.6, 0.8, 0.95)
_PAD = "□"


@dataclass(frozen=True)
class TitleFeatures:
    """Features of characters: neighbours, kinds, known names and place."""

    gazetteer: Gazetteer

    def of(self, title: str) -> list[list[str]]:
        """Return the names of the active features of each character."""
        text = title.lower()
        if len(text) != len(title):
            text = title
        padded = _PAD * 3 + text + _PAD * 3
        kinds = [_PAD, *map(_kind, title), _PAD]
        rows = [_around(padded, at + 3) for at in range(len(title))]
        for at, row in enumerate(rows):
            row.append("kinds=" + "".join(kinds[at : at + 3]))
        self._mark_names(title, rows)
        if rows:
            rows[0].append("first")
            rows[-1].append("last")
        return rows

    def _mark_names(self, title: str, rows: list[list[str]]) -> None:
        for match in self.gazetteer.all_matches(title):
            _mark(rows, match, "any")
        for match in self.gazetteer.longest_matches(title):
            _mark(rows, match, "max")
        for match in self.gazetteer.longest_matches(title, 0.5):
            _mark(rows, match, "sure")


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
