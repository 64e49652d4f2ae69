"""Quality of classifiers: accuracy, macro-F1, confusion matrix, and few-shot linear probes."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from newshelf.evaluation.types import FloatArray, IntArray, Interval

_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Classification:
    """Metrics of one classifier on one test set."""

    accuracy: float
    macro_f1: float
    """Mean over the classes of the test set."""
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
    """Return accuracy, macro-F1 and confusion matrix with intervals.

    ::

        accuracy = right / all
        macro-F1 = mean over classes of 2·TP / (2·TP + FP + FN)

    Intervals resample the cells of the confusion matrix, which equals the bootstrap over
    independent cases.

    Args:
        truth: (N,) class numbers.
        predicted: (N,) class numbers.
        classes: C; every number is below it.
        seed: of the resamples.

    Raises:
        ValueError: there is no case, lengths differ, or a number is out of range.
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
    """Return accuracy and macro-F1 of (R, C, C) confusion matrices, (R,) each."""
    right = np.diagonal(drawn, axis1=1, axis2=2).astype(np.float64)
    rows, columns = drawn.sum(axis=2), drawn.sum(axis=1)
    per_class = 2 * right / np.maximum(rows + columns, 1)
    present = rows > 0
    macro = np.where(present, per_class, 0).sum(axis=1) / present.sum(axis=1)
    return right.sum(axis=1) / rows.sum(axis=1), macro


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


SHOTS = (1, 2, 5, 10, 20)
_MIN_PER_CLASS = 6
_MAX_TEST = 50
_INVERSE_PENALTY = 30.0
"""Large, as unit vectors need large weights."""


@dataclass(frozen=True, eq=False)
class FewShot:
    """Accuracy of linear probes on several features of the same items."""

    shots: tuple[int, ...]
    classes: tuple[str, ...]
    tested: int
    accuracy: Mapping[str, FloatArray]
    """Name of the features → (shots, repeats), as in ``macro_f1``."""
    macro_f1: Mapping[str, FloatArray]
    last: Mapping[str, Classification]
    """With the most shots, in the first repeat."""

    def means(self, name: str) -> npt.NDArray[np.float64]:
        """Return (shots,) mean accuracy over the repeats."""
        found: npt.NDArray[np.float64] = self.accuracy[name].mean(axis=1, dtype=np.float64)
        return found

    def spreads(self, name: str) -> npt.NDArray[np.float64]:
        """Return (shots,) standard deviation over the repeats."""
        found: npt.NDArray[np.float64] = self.accuracy[name].std(axis=1, dtype=np.float64)
        return found


def few_shot(
    features: Mapping[str, FloatArray],
    labels: Sequence[str | None],
    *,
    shots: Sequence[int] = SHOTS,
    repeats: int = 3,
    seed: int = 0,
) -> FewShot | None:
    """Fit logistic regressions on a few labelled items per class, and test them on others.

    Half of each class, at most 50 items, is the test set. The shots are drawn from the other half
    in each repeat, the same for all features. A class with fewer items than shots gives all.

    Args:
        features: name → (N, D) float32, finite.
        labels: (N,) class names; items without one and classes of under 6 items are left out.
        shots: labels per class; numbers that no class has are left out.
        repeats: draws of the shots.
        seed: of test set and draws.

    Returns:
        None if fewer than two classes are left.
    """
    kept = {
        name: rows
        for name in sorted({label for label in labels if label})
        if len(rows := np.flatnonzero([label == name for label in labels])) >= _MIN_PER_CLASS
    }
    if len(kept) < 2:  # noqa: PLR2004  (something to tell apart)
        return None
    generator = np.random.default_rng(seed)
    pools, test, truth = [], [], []
    for number, rows in enumerate(kept.values()):
        mixed = generator.permutation(rows)
        held = min(len(rows) // 2, _MAX_TEST)
        test.append(mixed[:held])
        truth.append(np.full(held, number))
        pools.append(mixed[held:])
    tested, true = np.concatenate(test), np.concatenate(truth)
    largest = max(len(pool) for pool in pools)
    counts = tuple(count for count in shots if count <= largest) or (largest,)
    unit = {name: _unit(rows) for name, rows in features.items()}
    shape = (len(counts), repeats)
    accuracy = {name: np.zeros(shape, dtype=np.float32) for name in unit}
    macro_f1 = {name: np.zeros(shape, dtype=np.float32) for name in unit}
    last: dict[str, Classification] = {}
    for repeat in range(repeats):
        order = [generator.permutation(pool) for pool in pools]
        for place, count in enumerate(counts):
            rows = np.concatenate([pool[:count] for pool in order])
            known = np.concatenate([np.full(len(p[:count]), n) for n, p in enumerate(order)])
            for name, vectors in unit.items():
                found = _probe(vectors, rows, known, tested)
                measured = classify_report(true, found, len(kept), seed=seed)
                accuracy[name][place, repeat] = measured.accuracy
                macro_f1[name][place, repeat] = measured.macro_f1
                if repeat == 0:
                    last[name] = measured
    return FewShot(counts, tuple(kept), len(tested), accuracy, macro_f1, last)


def _probe(vectors: FloatArray, rows: IntArray, known: IntArray, tested: IntArray) -> IntArray:
    probe = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500)
    with warnings.catch_warnings():
        # One label per class is intended here; sklearn suspects a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        probe.fit(vectors[rows], known)
    found: IntArray = probe.predict(vectors[tested]).astype(np.int64)
    return found


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: FloatArray = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
