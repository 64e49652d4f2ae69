"""What unlabelled titles tell of where words begin and end, without a dictionary.

Cohesion of two neighbouring characters, as pointwise mutual information, and the
branching entropy of what follows and precedes a pair (Harris 1955; Jin & Tanaka-Ishii,
"Unsupervised Segmentation of Chinese Text by Use of Branching Entropy", ACL 2006):

    pmi(a, b) = log p(ab) / (p(a) p(b)),   h(ab) = - Σ_c p(c | ab) log p(c | ab)

A low cohesion or a high entropy hints at a boundary.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CharacterStatistics"]


@dataclass(frozen=True)
class CharacterStatistics:
    """Statistics of pairs of characters, in whole steps fit to be a feature."""

    cohesion: dict[str, int]
    """Pair → rounded PMI in nats."""
    after: dict[str, int]
    """Pair → rounded entropy of the next character, in halves of a nat."""
    before: dict[str, int]
    """Pair → rounded entropy of the character before it, in halves of a nat."""

    @classmethod
    def learn(cls, titles: Sequence[str]) -> "CharacterStatistics":
        """Count each title once."""
        single: Counter[str] = Counter()
        double: Counter[str] = Counter()
        after: dict[str, Counter[str]] = defaultdict(Counter)
        before: dict[str, Counter[str]] = defaultdict(Counter)
        for title in dict.fromkeys(titles):
            text = f"^{title.lower()}$"
            single.update(text)
            for at in range(len(text) - 1):
                pair = text[at : at + 2]
                double[pair] += 1
                after[pair][text[at + 2 : at + 3]] += 1
                before[pair][text[at - 1 : at] if at else ""] += 1
        total = max(sum(single.values()), 1)
        cohesion = {
            pair: round(math.log(count * total / (single[pair[0]] * single[pair[1]])))
            for pair, count in double.items()
        }
        return cls(cohesion, _entropies(after), _entropies(before))


def _entropies(neighbours: dict[str, Counter[str]]) -> dict[str, int]:
    return {pair: round(2 * _entropy(counts)) for pair, counts in neighbours.items()}


def _entropy(counts: Counter[str]) -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())
