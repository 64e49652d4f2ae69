"""Train any of the methods on two domains' features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.methods.adapt.domains import Labelled, Unlabelled, check_domains
from benchmarks.methods.adapt.losses import (
    CDAN,
    DAN,
    DANN,
    MCC,
    RTN,
    AdaBN,
    AdaptationLoss,
    SourceOnly,
)
from benchmarks.methods.adapt.network import AdaptationNetwork, DomainClassifier, Projection
from newshelf.errors import TrainingError
from newshelf.training.loop import Objective, fit
from newshelf.training.run import Run

METHODS: dict[str, Callable[[AdaptationNetwork], AdaptationLoss]] = {
    "source-only": SourceOnly,
    "adabn": AdaBN,
    "dann": DANN,
    "rtn": RTN,
    "dan": DAN,
    "cdan": CDAN,
    "mcc": MCC,
}
"""Method by name; each takes the shared network."""
DEFAULT = "mcc"


@dataclass(frozen=True)
class AdaptSettings:
    """Sizes and the optimiser: as published by the methods' authors but for the sizes.

    SGD with Nesterov momentum and the learning rate ``η (1 + 10 p)^-0.75``.
    """

    components: int = 256
    """Axes of the features that are kept."""
    bottleneck: int = 256
    dropout: float = 0.5
    batch_size: int = 64
    """Rows of each domain."""
    steps: int = 20
    """Of an epoch."""
    epochs: int = 30
    learning_rate: float = 0.03
    """η; below 0.1 all converge to about the same."""
    momentum: float = 0.9
    weight_decay: float = 1e-3


def adapt(
    source: Labelled,
    target: Unlabelled,
    run: Run,
    *,
    method: str | Callable[[AdaptationNetwork], AdaptationLoss] = DEFAULT,
    settings: AdaptSettings | None = None,
    name: str = "adapt",
    projection: Projection | None = None,
) -> DomainClassifier:
    """A classifier for the target, learned from the source's labels.

    The work is done on the device where the features are.

    Args:
        source: all labelled rows.
        target: all unlabelled rows, of the same width.
        run: seed, state to resume from.
        method: a name of ``METHODS``, or a function that makes your own loss.
        settings: sizes and optimiser.
        name: of the loop within the run.
        projection: ``Projection.of`` these domains, where several methods share it; None
            makes it.

    Raises:
        TrainingError: see ``check_domains``; or the method is not known.
    """
    settings = settings or AdaptSettings()
    classes = check_domains(source, target)
    build = METHODS.get(method) if isinstance(method, str) else method
    if build is None:
        raise TrainingError(f"no adaptation method {method!r}: choose from {', '.join(METHODS)}")
    if projection is None:
        projection = Projection.of(source, target, settings.components)
    source = Labelled(projection(source.features), source.target)
    target = Unlabelled(projection(target.features))
    # The network's start is part of the seed, without disturbing other random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = AdaptationNetwork(
            len(projection.axes), classes, settings.bottleneck, settings.dropout
        )
        loss = build(network)
        objective = _Steps(loss, settings.steps * settings.epochs)
        objective.to(source.features.device)
        optimizer = torch.optim.SGD(
            objective.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=True,
        )
        total = settings.steps * settings.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + 10 * step / total) ** -0.75
        )

        def batches(_: int, generator: torch.Generator) -> Iterator[tuple[Labelled, Unlabelled]]:
            lengths = len(source.features), len(target.features)
            ours, theirs = (
                _endless(length, settings.batch_size, settings.steps, generator)
                for length in lengths
            )
            for rows, others in zip(ours, theirs, strict=True):
                labelled = Labelled(source.features[rows], source.target[rows])
                yield labelled, Unlabelled(target.features[others])

        fit(name, objective, batches, optimizer, run, epochs=settings.epochs, schedule=schedule)
    if loss.target_statistics and len(target.features) > 1:
        network.normalise_by(target.features)
    return DomainClassifier(projection, network).eval()


class _Steps(Objective):
    """Counts the steps for the methods' schedules; the count is resumed with the weights."""

    step: Tensor

    def __init__(self, loss: AdaptationLoss, total: int) -> None:
        super().__init__()
        self.loss = loss
        self.total = total
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: tuple[Labelled, Unlabelled]) -> dict[str, Tensor]:
        self.loss.progress = int(self.step) / self.total
        self.step += 1
        losses: dict[str, Tensor] = self.loss(*batch)
        return losses


def _endless(length: int, batch: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """``steps`` batches of row numbers: permutations one after the other, so all rows count."""
    rounds = -(-batch * steps // length)
    rows = torch.cat([torch.randperm(length, generator=generator) for _ in range(rounds)])
    edges = range(0, batch * steps + 1, batch)
    return [rows[start:end] for start, end in pairwise(edges)]
