"""Few-shot linear probes of features: accuracy, macro-F1 and confusion matrix."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.preprocessing import normalize

from newshelf.evaluation.types import FloatArray, IntArray

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
    confusion: Mapping[str, IntArray]
    """(C, C) counts with the most shots, in the first repeat; rows are the true classes."""

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
    in each repeat, the same for all features. Items without a label and classes of under 6 items
    are left out; None if fewer than two classes are left.

    ``features`` are (N, D) float32 by name, ``labels`` (N,).
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
    unit = {name: normalize(rows) for name, rows in features.items()}
    shape = (len(counts), repeats)
    accuracy = {name: np.zeros(shape, dtype=np.float32) for name in unit}
    macro_f1 = {name: np.zeros(shape, dtype=np.float32) for name in unit}
    confusion: dict[str, IntArray] = {}
    for repeat in range(repeats):
        order = [generator.permutation(pool) for pool in pools]
        for place, count in enumerate(counts):
            rows = np.concatenate([pool[:count] for pool in order])
            known = np.concatenate([np.full(len(p[:count]), n) for n, p in enumerate(order)])
            for name, vectors in unit.items():
                found = _probe(vectors, rows, known, tested)
                accuracy[name][place, repeat] = accuracy_score(true, found)
                macro_f1[name][place, repeat] = f1_score(true, found, average="macro")
                if repeat == 0:
                    confusion[name] = confusion_matrix(true, found).astype(np.int64)
    return FewShot(counts, tuple(kept), len(tested), accuracy, macro_f1, confusion)


def _probe(vectors: FloatArray, rows: IntArray, known: IntArray, tested: IntArray) -> IntArray:
    probe = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500)
    with warnings.catch_warnings():
        # One label per class is intended here; sklearn suspects a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        probe.fit(vectors[rows], known)
    found: IntArray = probe.predict(vectors[tested]).astype(np.int64)
    return found
