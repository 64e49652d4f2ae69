"""Names known from tagged titles, found again by longest match.

Alone it is the plain baseline of a tagger; as features it tells the tagger what it has
seen before.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from newshelf.knowledge.spans import Span, TaggedTitle

__all__ = ["Gazetteer", "Match"]


class Match(NamedTuple):
    """``title[start:end]`` is a known name, most often of ``label``."""

    start: int
    end: int
    label: str
    share: float
    """Of the name's occurrences in the titles it was learned from, how many were tagged
    with ``label``."""


@dataclass(frozen=True)
class Gazetteer:
    """Names with the label they mostly have, and how often text that reads so is one."""

    names: dict[str, tuple[str, float]]
    longest: int

    @classmethod
    def learn(cls, titles: Sequence[TaggedTitle]) -> "Gazetteer":
        """All names of the titles' spans; latin letters in lower case."""
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
            # Lower-casing can change a text's length, and then the name is not seen again.
            name: (label, count / max(seen[name], count))
            for name, counts in labels.items()
            for label, count in [_most_common(counts)]
        }
        return cls(names, longest)

    def all_matches(self, title: str) -> list[Match]:
        """Every known name in the title, overlapping or not."""
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
        """From left to right the longest known name, none overlapping another.

        Args:
            title: any text.
            least_share: names that are tagged more rarely are not known.
        """
        ends: dict[int, Match] = {}
        for match in self.all_matches(title):
            if match.share >= least_share:
                # The ends of one start come in increasing order.
                ends[match.start] = match
        return list(_from_left(ends.get(at) for at in range(len(title))))

    def tag(self, title: str, least_share: float = 0.0) -> list[Span]:
        """The longest matches, as spans."""
        return [Span(*match[:3]) for match in self.longest_matches(title, least_share)]


def _from_left(matches: Iterable[Match | None]) -> Iterable[Match]:
    end = 0
    for match in matches:
        if match is not None and match.start >= end:
            yield match
            end = match.end


def _most_common(counts: Counter[str]) -> tuple[str, int]:
    # Ties go by the alphabet, whatever order the titles came in.
    return min(counts.items(), key=lambda item: (-item[1], item[0]))
