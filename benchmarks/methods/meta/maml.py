"""Model-agnostic meta-learning, and classifiers that it adapts."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from benchmarks.methods.meta.episodes import Episode, FewShotNet
from benchmarks.methods.meta.learners import class_means
from newshelf.errors import TrainingError
from newshelf.training.loop import Objective

# MAML: a start from which a few steps of gradient descent learn a task.
#
# For tasks ``t`` with support loss ``L_t`` and query loss ``Q_t`` (Finn et al., 2017)::
#
#     θ_t^0 = θ,   θ_t^{j+1} = θ_t^j - α ∇L_t(θ_t^j),   min_θ Σ_t Q_t(θ_t^K)
#
# The gradient of ``Q_t(θ_t^K)`` goes through the inner steps, and so through the Hessians of
# ``L_t``: second order. First order takes every ``∂θ_t^{j+1}/∂θ_t^j`` for the identity. Both
# come from ``torch.func``: gradients of functions of parameters, mapped over tasks.
#
# ``α`` may be learned, one for each tensor of parameters (Meta-SGD, Li et al., 2017; MAML++,
# Antoniou et al., 2019), and the query losses after every step may count instead of only the
# last one (MAML++'s multi-step loss, with equal weights), for a start that is good soon.

Parameters = dict[str, Tensor]
"""By the names of ``Module.named_parameters``."""

Predict = Callable[..., Tensor]
"""A model's ``forward`` with its parameters filled in."""

ModelLoss = Callable[[Predict, Any], Tensor]
"""(predict, a task's support or queries) → scalar loss; without branches on values."""

Start = Callable[[nn.Module, Parameters, Any], Parameters]
"""(model, meta-learned parameters, support) → those that a task starts from."""


def inner_steps(
    loss: Callable[[Parameters], Tensor],
    parameters: Parameters,
    rates: Mapping[str, Tensor | float],
    *,
    steps: int,
    first_order: bool = False,
) -> Iterator[Parameters]:
    """Gradient descent on ``loss``; yields the parameters after each of the steps.

    ``rates`` are α by name; parameters without one stay as they are. With ``first_order`` no
    derivative passes through the gradients.
    """
    for _ in range(steps):
        slopes = grad(loss)(parameters)
        stepped = dict(parameters)
        for name, rate in rates.items():
            slope = slopes[name].detach() if first_order else slopes[name]
            stepped[name] = parameters[name] - rate * slope
        parameters = stepped
        yield parameters


class Maml(Objective):
    """Meta-learns the parameters of ``model`` (in place) over batches of tasks.

    Args:
        model: whose parameters are the start θ.
        loss: of a task's support and of its queries alike.
        steps: K, inner steps of meta-training, at least 1.
        rate: α, or where its learning starts.
        first_order: drop the second derivatives.
        learn_rates: learn α, one for each tensor of parameters.
        every_step: minimise the mean of the query losses after each step, not the last.
        start: makes a task's parameters from the meta-learned ones and the support.

    Example::

        maml = Maml(model, loss, steps=5, rate=0.1)
        fit("maml", maml, batches, Adam(maml.parameters(), 1e-3), run, epochs=20)
        adapted = maml.adapt(support)
        maml.predict(adapted, inputs)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ModelLoss,
        *,
        steps: int,
        rate: float,
        first_order: bool = False,
        learn_rates: bool = False,
        every_step: bool = False,
        start: Start | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.steps, self.first_order, self.every_step = steps, first_order, every_step
        self._loss, self._start = loss, start
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        count = len(self._names) if learn_rates else 0
        self.log_rates = nn.Parameter(torch.full((count,), math.log(rate)))
        self.rate = rate

    def forward(self, batch: tuple[Any, Any]) -> dict[str, Tensor]:
        """Mean query loss after adaptation.

        Args:
            batch: support and queries, each a tuple of tensors with a leading dimension T
                of tasks; as ``loss`` takes them, without that dimension.
        """
        mapped = vmap(self._query_loss, in_dims=(None, 0, 0), randomness="different")
        losses: Tensor = mapped(dict(self.model.named_parameters()), *batch)
        return {"loss": losses.mean()}

    def _rates(self) -> Mapping[str, Tensor | float]:
        """α by name."""
        if len(self.log_rates):
            return dict(zip(self._names, self.log_rates.exp(), strict=True))
        return dict.fromkeys(self._names, self.rate)

    def adapt(self, support: Any, steps: int | None = None) -> Parameters:
        """The parameters for one task, after ``steps`` (None: as meta-trained).

        Raises:
            TrainingError: they became no numbers.
        """
        *_, last = self.trajectory(support, steps)
        return last

    def trajectory(self, support: Any, steps: int | None = None) -> Iterator[Parameters]:
        """The parameters before the first step, and after each one.

        Raises:
            TrainingError: they became no numbers.
        """
        # Detached instead of under no_grad: a generator would leave that on between its steps.
        meta = {name: value.detach() for name, value in self.model.named_parameters()}
        rates = {
            name: rate.detach() if isinstance(rate, Tensor) else rate
            for name, rate in self._rates().items()
        }
        taken = self.steps if steps is None else steps
        for parameters in self._path(meta, support, rates, taken):
            if not all(bool(torch.isfinite(value).all()) for value in parameters.values()):
                raise TrainingError(
                    "adapting to a task gave parameters that are no numbers: lower the inner "
                    "rate, and look for features that are no numbers"
                )
            yield parameters

    def predict(self, parameters: Parameters, *inputs: Tensor) -> Tensor:
        """The model's output with a task's parameters."""
        output: Tensor = functional_call(self.model, parameters, inputs)
        return output

    def _query_loss(self, meta: Parameters, support: Any, queries: Any) -> Tensor:
        path = list(self._path(meta, support, self._rates(), self.steps))[1:]
        counted = path if self.every_step else path[-1:]
        losses = [self._loss(partial(self.predict, parameters), queries) for parameters in counted]
        return torch.stack(losses).mean()

    def _path(
        self, meta: Parameters, support: Any, rates: Mapping[str, Tensor | float], steps: int
    ) -> Iterator[Parameters]:
        first = self._start(self.model, meta, support) if self._start is not None else meta

        def loss(parameters: Parameters) -> Tensor:
            return self._loss(partial(self.predict, parameters), support)

        yield first
        yield from inner_steps(loss, first, rates, steps=steps, first_order=self.first_order)


# MAML for classifying new product types, on frozen features.
#
# Plain MAML meta-learns the head with everything else. ProtoMAML (Triantafillou et al.,
# 2020) starts a task's head from the prototypes ``c_n`` of its support, with which the
# network is a prototypical one before the first step::
#
#     logit_n(z) = 2 c_n·z - ‖c_n‖²
#
# and so knows the classes by their examples, not by number. It works for any number of
# classes; plain MAML for the number it was trained with.


class EpisodePart(NamedTuple):
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
) -> Maml:
    """MAML, or ProtoMAML with ``prototypes``, by cross-entropy; see :class:`Maml`."""
    return Maml(
        net,
        _loss,
        steps=steps,
        rate=rate,
        first_order=first_order,
        learn_rates=learn_rates,
        start=partial(_head_from_prototypes, net.head.out_features) if prototypes else None,
    )


class EpisodeMaml(Objective):
    """Feeds episodes of a feature table to MAML.

    ``features`` are ``(R, F)`` float32; episodes hold their row numbers.
    """

    features: Tensor

    def __init__(self, maml: Maml, features: Tensor) -> None:
        super().__init__()
        self.maml = maml
        self.register_buffer("features", features, persistent=False)

    def forward(self, batch: Episode) -> dict[str, Tensor]:
        """The meta-loss of T stacked episodes."""
        support = EpisodePart(self.features[batch.support], batch.support_labels)
        queries = EpisodePart(self.features[batch.queries], batch.query_labels)
        losses: dict[str, Tensor] = self.maml((support, queries))
        return losses


@dataclass(frozen=True)
class MamlLearner:
    """Adapts a meta-trained network to a support by gradient steps; see ``FewShotLearner``."""

    maml: Maml

    def __call__(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Take the inner steps on the support, and return the queries' logits."""
        parameters = self.maml.adapt(EpisodePart(support, labels))
        with torch.no_grad():
            return self.maml.predict(parameters, queries)


def _loss(predict: Predict, part: EpisodePart) -> Tensor:
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
