"""How fast, and from which epoch on, each stage learns (Howard and Ruder, ULMFiT, 2018)."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer

__all__ = ["rate_groups", "slanted_triangular", "thaw"]

_CUT = 0.1
_RATIO = 32.0


def rate_groups(
    stages: Sequence[nn.Module], head: nn.Module, rate: float, decay: float, head_rate: float
) -> list[dict[str, Any]]:
    """Optimizer groups: stage i of n learns with ``rate / decay^(n - 1 - i)``."""
    last = len(stages) - 1
    groups: list[dict[str, Any]] = [
        {"params": [*stage.parameters()], "lr": rate / decay ** (last - at), "weight_decay": 0.0}
        for at, stage in enumerate(stages)
    ]
    return [
        *(group for group in groups if group["params"]),
        {"params": [*head.parameters()], "lr": rate * head_rate},
    ]


def thaw(stages: Sequence[nn.Module], epoch: int, epochs_each: float) -> None:
    """Freeze all but the last ``epoch / epochs_each`` stages: in epoch 0 the head is alone."""
    learning = len(stages) if epochs_each == 0 else int(epoch / epochs_each)
    frozen = len(stages) - learning
    for at, stage in enumerate(stages):
        stage.requires_grad_(at >= frozen)


def slanted_triangular(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Up over the first tenth of the steps, then down in a line to a 32nd.

    With ``T`` steps, ``c = 0.1 T`` and ``p = t/c`` before ``c``, ``1 - (t-c)/(T-c)`` after::

        rate(t) = rate · (1 + p · (32 - 1)) / 32
    """
    cut = max(1, int(steps * _CUT))

    def factor(step: int) -> float:
        share = step / cut if step < cut else 1 - (step - cut) / max(1, steps - cut)
        return (1 + max(0.0, share) * (_RATIO - 1)) / _RATIO

    return LambdaLR(optimizer, factor)
