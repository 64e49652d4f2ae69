"""What tuning minimises: the classes of the target, near to the weights of the source."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.transfer.loop import Objective
from newshelf.transfer.pictures.distance import SourceDistance
from newshelf.transfer.pictures.settings import TowerSettings
from newshelf.transfer.pictures.trunk import Activations

__all__ = ["TowerObjective"]

_BATCH = 64


class TowerObjective(Objective):
    """``CE(head(tail(x)), class) + λ · ||w - w_source||²`` over a batch of positions.

    Args:
        activations: of n pictures.
        tail: the part of the tower that is trained.
        head: from its pooled features to classes.
        target: ``(n,)`` int64.
        weights: ``(classes,)`` float32, how much each class counts.
        settings: λ and label smoothing.
    """

    def __init__(
        self,
        activations: Activations,
        tail: nn.Sequential,
        head: nn.Linear,
        target: Tensor,
        weights: Tensor,
        settings: TowerSettings,
    ) -> None:
        super().__init__()
        self.tail = tail
        self.head = head
        self.distance = SourceDistance(tail.parameters())
        self._activations = activations
        self._target = target
        self._weights = weights
        self._settings = settings

    def train(self, mode: bool = True) -> "TowerObjective":
        """As usual, but normalisation keeps the source's statistics."""
        super().train(mode)
        for module in self.tail.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``batch (B,)`` int64 → ``loss``, ``classes`` and, with λ > 0, ``distance``."""
        logits = self.head(self.tail(self._activations.learned_from(batch)))
        smoothing = self._settings.label_smoothing
        classes = F.cross_entropy(
            logits.float(), self._target[batch], self._weights, label_smoothing=smoothing
        )
        if self._settings.l2_sp == 0:
            return {"loss": classes, "classes": classes.detach()}
        distance = self.distance()
        loss = classes + self._settings.l2_sp * distance
        return {"loss": loss, "classes": classes.detach(), "distance": distance.detach()}

    @torch.no_grad()
    def mean_recall(self, rows: Tensor) -> float:
        """Over the classes, the share of their ``rows`` that is recognised."""
        predicted = torch.cat(
            [
                self.head(self.tail(self._activations.tested_on(chunk))).argmax(dim=1)
                for chunk in rows.split(_BATCH)
            ]
        )
        right = (predicted == self._target[rows]).float()
        values = self._target[rows].unique()
        recalls = [right[self._target[rows] == value].mean() for value in values]
        return float(torch.stack(recalls).mean())
