"""What a click model minimises: log-loss over rows, or the order within pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.ctr.impressions import Impressions
from benchmarks.methods.ctr.table import FieldTable, Inputs
from benchmarks.methods.ctr.xdeepfm import XDeepFM
from newshelf.transfer.loop import Objective

__all__ = ["LogLoss", "Pairs", "PairwiseLoss", "pairwise_loss"]


def pairwise_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009, arXiv:1205.2618).

    ::

        loss = - mean_{b,n} log σ(s⁺_b - s⁻_bn)

    Args:
        positive: ``(B,)`` scores of what was taken.
        negative: ``(B, n)`` scores of what was not, by the same askers.
    """
    return -F.logsigmoid(positive.unsqueeze(1) - negative).mean()


class _Click(Objective):
    """The model, its table, and the dropping of ids.

    A dropped user or item is read as an unknown one. So the network learns what to make of
    ids it has never seen, from their other fields (DropoutNet, Volkovs et al., 2017).
    """

    def __init__(
        self, model: XDeepFM, table: FieldTable, user_dropout: float, item_dropout: float
    ) -> None:
        super().__init__()
        self.model = model
        self._table = table
        kinds = [field.name for field in table.fields if field.kind == "category"]
        drop = {"user": user_dropout, "item": item_dropout}
        self._drop = torch.tensor([drop.get(name, 0.0) for name in kinds])

    def _logits(self, rows: Impressions) -> Tensor:
        inputs = self._table.inputs(rows)
        if self.training and bool((self._drop > 0).any()):
            gone = torch.rand(inputs.categories.shape) < self._drop
            inputs = Inputs(inputs.categories.masked_fill(gone, 0), inputs.bags, inputs.dense)
        logits: Tensor = self.model(*inputs)
        return logits


class LogLoss(_Click):
    """Pointwise: the binary cross-entropy of ``σ(logit)`` and the label."""

    def forward(self, batch: Impressions) -> dict[str, Tensor]:
        """Of rows with labels."""
        label = torch.from_numpy(batch.label)
        return {"loss": F.binary_cross_entropy_with_logits(self._logits(batch), label)}


@dataclass(frozen=True, eq=False)
class Pairs:
    """``B`` rows that took, and ``n`` that did not for each: ``(B · n)``, one's after another's."""

    positive: Impressions
    negative: Impressions


class PairwiseLoss(_Click):
    """:func:`pairwise_loss` of the logits; only their order within an asker is learned."""

    def forward(self, batch: Pairs) -> dict[str, Tensor]:
        """Of pairs."""
        positive = self._logits(batch.positive)
        negative = self._logits(batch.negative).view(len(positive), -1)
        return {"loss": pairwise_loss(positive, negative)}
