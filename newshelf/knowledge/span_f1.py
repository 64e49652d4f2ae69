"""How many spans are found exactly: micro-averaged precision, recall and F1.

    P = found / predicted,  R = found / true,  F1 = 2 · found / (predicted + true)

A span is found when start, end and label all agree (the CoNLL measure).
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from newshelf.knowledge.spans import Span

__all__ = ["SpanScore", "span_scores"]


class SpanScore(NamedTuple):
    """Counts of spans; the rates are 0 where there is nothing to divide by."""

    found: int
    predicted: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the predicted spans that are right."""
        return self.found / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true spans that are found."""
        return self.found / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.predicted + self.true
        return 2 * self.found / total if total else 0.0


def span_scores(
    predicted: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]]
) -> dict[str, SpanScore]:
    """Scores of all titles together: under ``""`` of all labels, then of each label.

    Raises:
        ValueError: the two have not the same number of titles.
    """
    found: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    truths: Counter[str] = Counter()
    for guess, truth in zip(predicted, true, strict=True):
        for counter, spans in (
            (guesses, set(guess)),
            (truths, set(truth)),
            (found, set(guess) & set(truth)),
        ):
            for span in spans:
                counter[span.label] += 1
                counter[""] += 1
    labels = ["", *sorted((guesses | truths).keys() - {""})]
    return {label: SpanScore(found[label], guesses[label], truths[label]) for label in labels}
