"""Which pictures are learned from, in what order, and how much each class counts."""

import torch
from torch import Tensor

from newshelf.errors import TrainingError

__all__ = ["class_weights", "epoch_rows", "hold_out", "require_shots"]

_MIN_TO_HOLD_OUT = 10


def require_shots(target: Tensor, classes: tuple[str, ...], shots: int = 1) -> None:
    """Refuse labels nothing can be learned from.

    Args:
        target: ``(n,)`` int64, each a class.
        classes: their names.
        shots: labelled products each class must have.

    Raises:
        TrainingError: fewer than two classes, or a class with fewer than ``shots`` products.
    """
    if len(classes) <= 1:
        have = f"only {classes[0]!r}" if classes else "none"
        raise TrainingError(f"classifying needs two classes at least; the labels name {have}")
    counts = torch.bincount(target, minlength=len(classes)).tolist()
    few = [f"{name} has {n}" for name, n in zip(classes, counts, strict=True) if n < shots]
    if few:
        raise TrainingError(
            f"{shots} labelled products of each class are needed, but {', '.join(few)}: "
            "label more, ask for fewer shots, or leave the class out"
        )


def hold_out(target: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions to learn from and to validate on; none of the latter when classes are small.

    Args:
        target: ``(n,)`` int64.
        share: of each class.
        generator: decides which.

    Returns:
        Two int64 tensors of positions, without overlap.
    """
    everything = torch.arange(len(target))
    counts = torch.bincount(target)
    if share == 0 or counts[counts > 0].min() < _MIN_TO_HOLD_OUT:
        return everything, everything[:0]
    held = torch.zeros(len(target), dtype=torch.bool)
    for value in target.unique():
        rows = torch.nonzero(target == value).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held[rows[: max(1, round(share * len(rows)))]] = True
    return everything[~held], everything[held]


def epoch_rows(target: Tensor, balanced: bool, generator: torch.Generator) -> Tensor:
    """``(n,)`` positions of one epoch, shuffled.

    Balanced, every class is drawn alike: the rows of each are gone through again and again
    in random order until it has its share, so none is drawn twice before all were once.
    """
    rows = len(target)
    if not balanced:
        return torch.randperm(rows, generator=generator)
    values = target.unique()
    share = -(-rows // len(values))
    drawn = []
    for value in values:
        own = torch.nonzero(target == value).flatten()
        rounds = [
            own[torch.randperm(len(own), generator=generator)] for _ in range(-(-share // len(own)))
        ]
        drawn.append(torch.cat(rounds)[:share])
    every = torch.cat(drawn)
    return every[torch.randperm(len(every), generator=generator)][:rows]


def class_weights(target: Tensor, classes: int) -> Tensor:
    """``(classes,)`` float32: n / (classes · n_c), mean 1 over the n rows; 0 for no row."""
    counts = torch.bincount(target, minlength=classes).float()
    weights = len(target) / (classes * counts.clamp(min=1))
    return weights * (counts > 0)
