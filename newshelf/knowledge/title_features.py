"""What a tagger sees of each character of a title, as the names of its active features."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.knowledge.character_statistics import CharacterStatistics
from newshelf.knowledge.gazetteer import Gazetteer, Match

__all__ = ["TitleFeatures"]

_LONG = 6
"""Names of more characters than this are one length."""
_SHARES = (0.2, 0.4, 0.6, 0.8, 0.95)
_PAD = "□"


@dataclass(frozen=True)
class TitleFeatures:
    """Characters around, kinds of characters, known names, cohesion and place."""

    gazetteer: Gazetteer
    statistics: CharacterStatistics

    def of(self, title: str) -> list[list[str]]:
        """For each of the title's ``n`` characters, its features."""
        text = title.lower()
        if len(text) != len(title):
            text = title
        padded = _PAD * 3 + text + _PAD * 3
        kinds = [_PAD, *map(_kind, title), _PAD]
        rows = [_around(padded, at + 3) for at in range(len(title))]
        for at, row in enumerate(rows):
            row.append("kinds=" + "".join(kinds[at : at + 3]))
            row.extend(self._cohesion(text, at))
        _mark_runs(title, rows)
        self._mark_names(title, rows)
        if rows:
            rows[0].append("first")
            rows[-1].append("last")
        return rows

    def _cohesion(self, text: str, at: int) -> list[str]:
        statistics = self.statistics
        framed = f"^{text}$"
        before, after = framed[at : at + 2], framed[at + 1 : at + 3]
        return [
            f"join<={statistics.cohesion.get(before, '?')}",
            f"join>={statistics.cohesion.get(after, '?')}",
            f"open<={statistics.before.get(after, '?')}",
            f"open>={statistics.after.get(before, '?')}",
        ]

    def _mark_names(self, title: str, rows: list[list[str]]) -> None:
        matches = self.gazetteer.all_matches(title)
        for match in matches:
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


def _mark_runs(title: str, rows: list[list[str]]) -> None:
    """A run of latin letters and digits is one word: its text, shape and the place in it."""
    start = 0
    while start < len(title):
        end = start
        while end < len(title) and _kind(title[end]) in "aA0":
            end += 1
        if end > start:
            run = title[start:end]
            shape = "".join(map(_kind, run[:_LONG]))
            for at in range(start, end):
                place = _place(at, start, end)
                rows[at] += [f"run={place}{run.lower()}", f"shape={place}{shape}"]
        start = max(end, start + 1)


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
    """``B I … E``, or ``S`` for one character."""
    return [_place(at, start, end) for at in range(start, end)]
