"""Training of xDeepFM: losses, batches, predictions, calibration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from benchmarks.methods.ctr.fields import FieldTable, Inputs
from benchmarks.methods.ctr.impressions import Impressions, Negatives
from benchmarks.methods.ctr.xdeepfm import XDeepFM, XDeepFMSettings
from newshelf.evaluation.types import FloatArray
from newshelf.training.loop import Batches, Objective, fit
from newshelf.training.run import Run


def pairwise_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009, arXiv:1205.2618).

    ::

        loss = - mean_{b,n} log σ(s⁺_b - s⁻_bn)

    ``positive`` ``(B,)`` are scores of what was taken, ``negative`` ``(B, n)`` of what was not.
    """
    return -F.logsigmoid(positive.unsqueeze(1) - negative).mean()


class _Click(Objective):
    """The model, its table, and the dropping of item ids.

    A dropped item is read as an unknown one. So the network learns what to make of ids it has
    never seen, from their other fields (DropoutNet, Volkovs et al., 2017).
    """

    def __init__(self, model: XDeepFM, table: FieldTable, item_dropout: float) -> None:
        super().__init__()
        self.model = model
        self._table = table
        kinds = [field.name for field in table.fields if field.kind == "category"]
        self._drop = torch.tensor([item_dropout if name == "item" else 0.0 for name in kinds])

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


def calibration_error(
    probability: NDArray[np.floating], label: NDArray[np.floating], bins: int = 15
) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015), over bins of equal width.

    ::

        ECE = Σ_b |b| / N · | mean label in b - mean probability in b |

    ``probability`` is (N,) in 0..1, ``label`` (N,) 0 or 1; an empty bin counts nothing.
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, label.astype(np.float64) - probability, minlength=bins)
    return float(np.abs(gap).sum() / len(label))


_PREDICT_ROWS = 4096


def train_xdeepfm(
    table: FieldTable,
    rows: Impressions,
    settings: XDeepFMSettings,
    run: Run,
    *,
    negatives: Negatives | None = None,
) -> XDeepFM:
    """Train on positives with sampled negatives, or on rows with labels as they are.

    Args:
        table: the fields.
        rows: all positives when ``negatives`` are drawn for them; else labelled 0 and 1.
        settings: shape, loss and steps.
        run: seed, state and tracker.
        negatives: where negatives come from; None for labelled rows (log-loss only).

    Returns:
        The network in ``eval`` mode.

    Raises:
        TrainingError: a loss that is not finite.
    """
    torch.manual_seed(run.seed)
    model = XDeepFM(table.fields, settings)
    kind = LogLoss if settings.loss == "log" else PairwiseLoss
    objective: Objective = kind(model, table, settings.item_dropout)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    batches = _batches(rows, settings, negatives)
    fit("xdeepfm", objective, batches, optimizer, run, epochs=settings.epochs)
    return model


@torch.inference_mode()
def predict(model: XDeepFM, table: FieldTable, rows: Impressions) -> FloatArray:
    """``(len(rows),)`` float32 logits, the network in ``eval`` mode."""
    parts = [
        model(*table.inputs(rows.take(part))).numpy() for part in _parts(len(rows), _PREDICT_ROWS)
    ]
    return np.concatenate(parts).astype(np.float32)


def _batches(rows: Impressions, settings: XDeepFMSettings, negatives: Negatives | None) -> Batches:
    def batches(epoch: int, generator: Generator) -> Iterator[Impressions | Pairs]:  # noqa: ARG001
        seed = int(torch.randint(1 << 62, (), generator=generator))
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(rows))[: settings.max_rows]
        for part in _parts(len(order), settings.batch_size):
            taken = rows.take(order[part])
            if negatives is None:
                yield taken
            elif settings.loss == "log":
                yield negatives.labelled(taken, settings.negatives, rng)
            else:
                drawn = negatives.draw(taken, settings.negatives, rng).ravel()
                who = np.repeat(np.arange(len(taken)), settings.negatives)
                yield Pairs(taken, taken.take(who).showing(drawn, 0.0))

    return batches


def _parts(count: int, size: int) -> Sequence[npt.NDArray[np.int64]]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
