"""How well classes are told: accuracy, macro-F1 and the confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from newshelf.evaluation.types import IntArray, Interval

__all__ = ["Classification", "classify_report"]

_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Classification:
    """Figures of one classifier on one test set."""

    accuracy: float
    macro_f1: float
    """The mean over the classes that are in the test set."""
    accuracy_interval: Interval
    macro_f1_interval: Interval
    """95 %, by bootstrap over the cases."""
    confusion: IntArray
    """(C, C) counts, rows are the true classes."""
    cases: int


def classify_report(
    truth: Sequence[int] | IntArray,
    predicted: Sequence[int] | IntArray,
    classes: int,
    *,
    seed: int = 0,
) -> Classification:
    """Measure predictions.

    ::

        accuracy = right / all
        macro-F1 = mean over classes of 2·TP / (2·TP + FP + FN)

    The intervals draw the cells of the confusion matrix anew, which is the bootstrap over
    independent cases.

    Args:
        truth: (N,) class numbers.
        predicted: (N,) class numbers.
        classes: C; every number is below it.
        seed: of the resamples.

    Raises:
        ValueError: no case, lengths that differ, or a number out of range.
    """
    true, found = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if not len(true) == len(found) > 0:
        raise ValueError(f"{len(true)} true classes and {len(found)} predicted ones")
    if min(true.min(), found.min()) < 0 or max(true.max(), found.max()) >= classes:
        raise ValueError(f"class numbers must be within 0..{classes - 1}")
    present = np.unique(true)
    confusion = confusion_matrix(true, found, labels=np.arange(classes))
    drawn = np.random.default_rng(seed).multinomial(
        len(true), confusion.ravel() / len(true), size=_RESAMPLES
    )
    accuracies, scores = _of_matrices(drawn.reshape(-1, classes, classes))
    return Classification(
        accuracy=float(accuracy_score(true, found)),
        macro_f1=float(f1_score(true, found, labels=present, average="macro", zero_division=0)),
        accuracy_interval=_interval(accuracies),
        macro_f1_interval=_interval(scores),
        confusion=confusion.astype(np.int64),
        cases=len(true),
    )


def _of_matrices(
    drawn: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Accuracy and macro-F1 of (R, C, C) confusion matrices, (R,) each."""
    right = np.diagonal(drawn, axis1=1, axis2=2).astype(np.float64)
    rows, columns = drawn.sum(axis=2), drawn.sum(axis=1)
    per_class = 2 * right / np.maximum(rows + columns, 1)
    present = rows > 0
    macro = np.where(present, per_class, 0).sum(axis=1) / present.sum(axis=1)
    return right.sum(axis=1) / rows.sum(axis=1), macro


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
