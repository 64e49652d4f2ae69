"""How far a cheaper encoder is from the float32 one, and how far it may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.spec import HeadName

__all__ = [
    "LEAST_COSINE",
    "LEAST_LOW_COSINE",
    "LEAST_OVERLAP",
    "MOST_DROP",
    "Quality",
    "failures",
    "measure_quality",
]

LEAST_COSINE = 0.99
"""Of the mean product."""
LEAST_LOW_COSINE = 0.98
"""Of the one that 95 % of the products are better than."""
LEAST_OVERLAP = 0.9
MOST_DROP = 1.0
_NEIGHBOURS = 10
_LOW = 5

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Quality:
    """One candidate in one view."""

    view: str
    products: int
    cosine_mean: float
    cosine_low: float
    """The 5th percentile."""
    cosine_min: float
    overlap: float | None
    """Mean share of the ten nearest that stay; None with too few products."""
    accuracy_drop: float | None
    """Points by which fewer labels are right, over all heads; None without labels."""
    labels: int


def measure_quality(
    view: str,
    reference: Outputs,
    outputs: Outputs,
    labels: Mapping[HeadName, NDArray[np.int64]],
) -> Quality:
    """Compare the outputs for the same ``N`` products.

    The neighbours are sought among float32 embeddings on both sides: those of the index are
    float32, whatever the encoder that serves beside it.

    Args:
        view: a name for the report.
        reference: of the float32 encoder, ``embedding (N, 512)`` and logits.
        outputs: of the candidate.
        labels: by head ``(N,)``, -1 for none.
    """
    expected, actual = reference["embedding"], outputs["embedding"]
    cosine = np.nan_to_num((expected * actual).sum(axis=1), nan=-1.0)
    counts = [_right(values, labels) for values in (reference, outputs)]
    known = int(sum((values >= 0).sum() for values in labels.values()))
    return Quality(
        view=view,
        products=len(cosine),
        cosine_mean=float(cosine.mean()),
        cosine_low=float(np.percentile(cosine, _LOW)),
        cosine_min=float(cosine.min()),
        overlap=_overlap(expected, actual),
        accuracy_drop=100.0 * (counts[0] - counts[1]) / known if known else None,
        labels=known,
    )


def failures(quality: Quality) -> list[str]:
    """Which limits are not kept, each with its number; empty when all are."""
    found = []
    for name, value, least in (
        ("mean", quality.cosine_mean, LEAST_COSINE),
        ("5th percentile", quality.cosine_low, LEAST_LOW_COSINE),
    ):
        # Written so that a NaN fails.
        if not value >= least:
            found.append(f"cosine {value:.4f} ({name}), at least {least} is asked for")
    if quality.overlap is not None and not quality.overlap >= LEAST_OVERLAP:
        found.append(f"neighbour overlap {quality.overlap:.3f}, at least {LEAST_OVERLAP}")
    if quality.accuracy_drop is not None and not quality.accuracy_drop <= MOST_DROP:
        found.append(
            f"{quality.accuracy_drop:.1f} points fewer labels right, at most {MOST_DROP:g}"
        )
    return [f"{quality.view}: {reason}" for reason in found]


def _right(outputs: Outputs, labels: Mapping[HeadName, NDArray[np.int64]]) -> int:
    return sum(
        int((outputs[f"{head}_logits"].argmax(axis=1) == values).sum())
        for head, values in labels.items()
    )


def _overlap(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float | None:
    count = min(_NEIGHBOURS, len(expected) - 2)
    if count < 1:
        return None
    wanted, found = (_nearest(queries, expected, count) for queries in (expected, actual))
    shared = [len(set(a) & set(b)) for a, b in zip(wanted, found, strict=True)]
    return float(np.mean(shared)) / count


def _nearest(
    queries: NDArray[np.float32], among: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    likeness = queries @ among.T
    np.fill_diagonal(likeness, -np.inf)
    nearest: NDArray[np.intp] = np.argsort(-likeness, axis=1)[:, :count]
    return nearest
