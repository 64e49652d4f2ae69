"""Training of xDeepFM: losses, batches, predictions, calibration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Generator, Tensor
from torch.nn import functional as F

from benchmarks.methods.ctr.fields import FieldTable, Inputs
from benchmarks.methods.ctr.impressions import Impressions, Negatives
from benchmarks.methods.ctr.xdeepfm import Activation, XDeepFM, XDeepFMSpec
from newshelf.errors import TrainingError
from newshelf.evaluation.types import FloatArray
from newshelf.training.loop import Batches, LossHistory, Objective, fit
from newshelf.training.run import Run


def pairwise_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009, arXiv:1205.2618).

    ::

        loss = - mean_{b,n} log σ(s⁺_b - s⁻_bn)

    ``positive`` ``(B,)`` are scores of what was taken, ``negative`` ``(B, n)`` of what was not.
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


@dataclass(frozen=True)
class XDeepFMSettings:
    """The network's shape and how it is trained."""

    loss: Literal["log", "pairwise"] = "pairwise"
    width: int = 16
    cin: tuple[int, ...] = (32, 32)
    cin_activation: Activation = "identity"
    deep: tuple[int, ...] = (64, 32)
    dropout: float = 0.0
    init_std: float = 0.01
    epochs: int = 5
    batch_size: int = 1024
    """Positives, or labelled rows when negatives are not sampled."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    negatives: int = 2
    """Sampled for each positive again in every epoch."""
    max_rows: int | None = None
    """Positives (or labelled rows) of an epoch, drawn again for each; None takes all."""
    user_dropout: float = 0.1
    """Share of the rows whose user is read as unknown; likewise for the item."""
    item_dropout: float = 0.1
    patience: int | None = None
    """Epochs without a better AUC on the validation rows before training stops."""


@dataclass(frozen=True)
class XDeepFMResult:
    """The trained network, in ``eval`` mode, and what was measured on the way."""

    model: XDeepFM
    history: LossHistory


def train_xdeepfm(
    table: FieldTable,
    rows: Impressions,
    settings: XDeepFMSettings,
    run: Run,
    *,
    negatives: Negatives | None = None,
    validation: Impressions | None = None,
    name: str = "xdeepfm",
) -> XDeepFMResult:
    """Train on positives with sampled negatives, or on rows with labels as they are.

    Args:
        table: the fields.
        rows: all positives when ``negatives`` are drawn for them; else labelled 0 and 1.
        settings: shape, loss and steps.
        run: seed, state and tracker.
        negatives: where negatives come from; None for labelled rows (log-loss only).
        validation: labelled rows; the weights with the best AUC on them are kept.
        name: of the loop within the run.

    Raises:
        TrainingError: no rows, labels of one class only where there must be two, pairs asked
            for without negatives, or a loss that is not finite.
    """
    _check(rows, settings, negatives, validation)
    torch.manual_seed(run.seed)
    model = XDeepFM(
        XDeepFMSpec(
            fields=table.fields,
            width=settings.width,
            cin=settings.cin,
            cin_activation=settings.cin_activation,
            deep=settings.deep,
            dropout=settings.dropout,
            init_std=settings.init_std,
        )
    )
    kind = LogLoss if settings.loss == "log" else PairwiseLoss
    objective: Objective = kind(model, table, settings.user_dropout, settings.item_dropout)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def auc() -> float:
        assert validation is not None  # noqa: S101 - for mypy; only called with one
        return float(roc_auc_score(validation.label, predict(model, table, validation)))

    history = fit(
        name,
        objective,
        _batches(rows, settings, negatives),
        optimizer,
        run,
        epochs=settings.epochs,
        validate=auc if validation is not None else None,
        patience=settings.patience,
    )
    return XDeepFMResult(model, history)


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


def _check(
    rows: Impressions,
    settings: XDeepFMSettings,
    negatives: Negatives | None,
    validation: Impressions | None,
) -> None:
    if len(rows) == 0:
        raise TrainingError("there are no events to learn from: add an events or a baskets table")
    if negatives is None:
        if settings.loss == "pairwise":
            raise TrainingError(
                "the pairwise loss compares what was taken with sampled negatives: give them, "
                "or use the log-loss for rows with labels"
            )
        _check_labels(rows, "to learn from")
    if validation is not None:
        _check_labels(validation, "to validate on")


def _check_labels(rows: Impressions, purpose: str) -> None:
    classes = np.unique(rows.label)
    if classes.tolist() != [0.0, 1.0]:
        raise TrainingError(
            f"the {len(rows)} rows {purpose} have the labels {classes.tolist()}: rows of both "
            "kinds are needed, 0 and 1; sample negatives when only what was taken is known"
        )
