"""MAML for classifying new product types, on frozen features.

Plain MAML meta-learns the head with everything else. ProtoMAML (Triantafillou et al.,
2020) starts a task's head from the prototypes ``c_n`` of its support, with which the
network is a prototypical one before the first step::

    logit_n(z) = 2 c_n·z - ‖c_n‖²

and so knows the classes by their examples, not by number. It works for any number of
classes; plain MAML for the number it was trained with.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.methods.meta.episodes import Episode
from benchmarks.methods.meta.learner import Embedding, check_queries, check_support
from benchmarks.methods.meta.maml import Maml, Parameters, Predict
from benchmarks.methods.meta.network import FewShotNet
from benchmarks.methods.meta.prototypes import class_means
from newshelf.errors import TrainingError
from newshelf.transfer.loop import Objective

__all__ = ["EpisodeMaml", "Labelled", "MamlLearner", "classification_maml"]


class Labelled(NamedTuple):
    """``features (R, F)`` and their ``labels (R,)`` int64; ``(T, …)`` for T tasks."""

    features: Tensor
    labels: Tensor


def classification_maml(
    net: FewShotNet,
    *,
    prototypes: bool,
    steps: int,
    rate: float,
    first_order: bool = False,
    learn_rates: bool = False,
    every_step: bool = False,
) -> Maml:
    """MAML, or ProtoMAML with ``prototypes``, by cross-entropy; see :class:`Maml`."""
    return Maml(
        net,
        _loss,
        steps=steps,
        rate=rate,
        first_order=first_order,
        learn_rates=learn_rates,
        every_step=every_step,
        start=partial(_head_from_prototypes, net.head.out_features) if prototypes else None,
    )


class EpisodeMaml(Objective):
    """Feeds episodes of a feature table to MAML.

    Args:
        maml: from :func:`classification_maml`.
        features: ``(R, F)`` float32; episodes hold its row numbers.
    """

    features: Tensor

    def __init__(self, maml: Maml, features: Tensor) -> None:
        super().__init__()
        self.maml = maml
        self.register_buffer("features", features, persistent=False)

    def forward(self, batch: Episode) -> dict[str, Tensor]:
        """The meta-loss of T stacked episodes."""
        support = Labelled(self.features[batch.support], batch.support_labels)
        queries = Labelled(self.features[batch.queries], batch.query_labels)
        losses: dict[str, Tensor] = self.maml((support, queries))
        return losses


@dataclass(frozen=True)
class MamlLearner:
    """Adapts a meta-trained network to a support by gradient steps."""

    maml: Maml
    embed: Embedding | None = None
    """What the network's input is made with, such as a whitening; None: the features."""
    steps: int | None = None
    """None: as many as in meta-training."""
    name: str = "MAML"

    def adapt(self, support: Tensor, labels: Tensor) -> "AdaptedNet":
        """Take the inner steps on ``support (S, F)``.

        Raises:
            TrainingError: see :func:`benchmarks.methods.meta.learner.check_support`; or plain
                MAML was trained for another number of classes.
        """
        ways = check_support(support, labels)
        trained = cast(FewShotNet, self.maml.model).head.out_features
        if ways != trained:
            raise TrainingError(
                f"the support has {ways} classes, MAML's head was meta-trained for {trained}: "
                "meta-train with as many, or use prototypes"
            )
        rows = self.embed(support) if self.embed is not None else support
        parameters = self.maml.adapt(Labelled(rows, labels), self.steps)
        return AdaptedNet(self.maml, parameters, self.embed, support.shape[1])


@dataclass(frozen=True)
class AdaptedNet:
    """The network with one task's parameters."""

    maml: Maml
    parameters: Parameters
    embed: Embedding | None
    width: int
    """Features of a query row."""

    @torch.no_grad()
    def scores(self, queries: Tensor) -> Tensor:
        """``(Q, F)`` → ``(Q, N)`` logits."""
        check_queries(queries, self.width)
        rows = self.embed(queries) if self.embed is not None else queries
        return self.maml.predict(self.parameters, rows)


def _loss(predict: Predict, part: Labelled) -> Tensor:
    return F.cross_entropy(predict(part.features), part.labels)


def _head_from_prototypes(
    ways: int, model: nn.Module, meta: Parameters, support: Any
) -> Parameters:
    net = cast(FewShotNet, model)
    prefix = "adapter."
    adapter = {name.removeprefix(prefix): p for name, p in meta.items() if name.startswith(prefix)}
    rows = functional_call(net.adapter, adapter, (support.features,))
    means = class_means(rows, support.labels, ways)
    head = {"head.weight": 2 * means, "head.bias": -means.square().sum(dim=1)}
    return {**meta, **head}
