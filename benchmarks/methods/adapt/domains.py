"""The two domains: rows with labels, and rows without."""

from dataclasses import dataclass

import torch
from torch import Tensor

from newshelf.errors import TrainingError

_FEATURES = 2
"""Dimensions of a table of features."""


@dataclass(frozen=True)
class Labelled:
    """Rows of the source: ``features (B, F)`` float32, ``target (B,)`` int64 in 0 … K - 1."""

    features: Tensor
    target: Tensor


@dataclass(frozen=True)
class Unlabelled:
    """Rows of the target: ``features (B, F)`` float32."""

    features: Tensor


def check_domains(source: Labelled, target: Unlabelled) -> int:
    """Raise when a classifier cannot be adapted from ``source`` to ``target``.

    Returns:
        K, the number of classes: the highest label plus one.

    Raises:
        TrainingError: an empty domain, features of another width or that are not finite,
            labels that do not fit the rows, or fewer than two classes.
    """
    for name, features in (("source", source.features), ("target", target.features)):
        if features.dim() != _FEATURES:
            raise TrainingError(
                f"the {name}'s features have shape {tuple(features.shape)}: give one row "
                "per product, (rows, width)"
            )
        if len(features) == 0:
            without = "labelled rows" if name == "source" else "unlabelled rows"
            raise TrainingError(
                f"the {name} domain has no {without}: adaptation needs some of both; "
                "without any of the target, train on the source alone"
            )
        bad = (~torch.isfinite(features)).any(dim=1)
        if bad.any():
            raise TrainingError(
                f"{int(bad.sum())} of the {name}'s {len(features)} rows have features that are "
                f"not finite, first row {int(bad.nonzero()[0])}: leave these rows out, or "
                "compute their features again"
            )
    widths = source.features.shape[1], target.features.shape[1]
    if widths[0] != widths[1]:
        raise TrainingError(
            f"the source's features are {widths[0]} wide, the target's {widths[1]}: compute "
            "both with the same towers"
        )
    return _check_labels(source)


def _check_labels(source: Labelled) -> int:
    if source.target.shape != source.features.shape[:1]:
        raise TrainingError(
            f"{len(source.features)} rows of the source have {len(source.target)} labels: "
            "give one label per row"
        )
    if int(source.target.min()) < 0:
        raise TrainingError(
            "the source has rows without a label (negative): leave them out, or give them "
            "to the target"
        )
    present = torch.unique(source.target)
    if len(present) < 2:  # noqa: PLR2004
        raise TrainingError(
            f"all {len(source.target)} rows of the source are of one class: a classifier "
            "needs at least two; choose a source with more product types"
        )
    return int(present.max()) + 1
