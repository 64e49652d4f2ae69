"""Domain adaptation of heads to products that look different and state nothing.

Photographs of other sellers, for example: a classifier that has learned from the labelled products
and, without labels, from these (AdaBN, Li et al., 2018; MCC, Jin et al., 2020) labels them, and the
head learns from all. It stays one linear layer, so that what was validated is what is served.

Without labels there, validation is reversed (Zhong et al., ECML 2010): a head learned from labelled
products labels the others; one learned from these must be right on labelled ones held out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.config import TrainingSettings
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import HeadName
from newshelf.training.choose import AUTO, Candidate, Choice, Score, choose
from newshelf.training.features import FeatureTable
from newshelf.training.few_shot import ABSENT, LinearHead, fit_probe
from newshelf.training.finetune import (
    STATED_BY,
    FinetuneResult,
    columns,
    embed,
    head_accuracy,
    held_out,
)
from newshelf.training.folds import Fold, mean_recall, validation_folds
from newshelf.training.labels import UNLABELLED, HeadLabels
from newshelf.training.loop import Objective, fit
from newshelf.training.run import Run

_MIN_UNLABELLED = 50
"""Products that state nothing, below which a head is not adapted to them."""
_DIFFERENT = 0.75
"""Area under the ROC curve of a classifier that tells them from labelled products."""

Outputs = tuple[Tensor, Tensor]
"""Embedding ``(B, H)`` and logits ``(B, K)`` of a batch."""


@dataclass(frozen=True)
class AdaptSettings:
    """Those of the methods' authors but for the sizes; a batch has as many rows of each domain."""

    bottleneck: int = 256
    dropout: float = 0.5
    batch_size: int = 64
    steps: int = 20
    epochs: int = 30
    learning_rate: float = 0.03


class AdaptationNetwork(nn.Module):
    """``z = dropout(relu(batch_norm(W x + b)))``, ``logits = V z + c``.

    Batch normalisation runs over each domain's batch separately, so that the two domains meet with
    similar mean and variance.
    """

    def __init__(self, width: int, classes: int, settings: AdaptSettings) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(settings.bottleneck)
        linear, dropout = nn.Linear(width, settings.bottleneck), nn.Dropout(settings.dropout)
        self.embed = nn.Sequential(linear, self.norm, nn.ReLU(), dropout)
        self.classifier = nn.Linear(settings.bottleneck, classes)

    def forward(self, features: Tensor) -> Outputs:
        """Return embedding and logits."""
        embedding = self.embed(features)
        return embedding, self.classifier(embedding)


class AdaptationLoss(Objective):
    """``L = CE(source) + adaptation(source, target)``, trained with the network.

    A batch is the source's features ``(B, F)`` and labels ``(B,)``, and the target's features; the
    two domains may differ in size. ``steps`` is the length of the training.
    """

    target_statistics = True
    """Normalise by the target's mean and variance in the end, as in its batches."""

    def __init__(self, network: AdaptationNetwork, steps: int) -> None:
        super().__init__()
        self.network = network
        self.steps = steps

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and ``adaptation``, its second term."""
        ours, theirs = self.network(batch[0]), self.network(batch[2])
        adaptation = self.adaptation(ours, theirs)
        return {"loss": F.cross_entropy(ours[1], batch[1]) + adaptation, "adaptation": adaptation}

    def adaptation(self, source: Outputs, target: Outputs) -> Tensor:
        """Return the weighted term that looks at the target, a scalar."""
        raise NotImplementedError


class AdaBN(AdaptationLoss):
    """``L = CE(source)``, then the target's own mean and variance in batch normalisation."""

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` alone; the target is kept out of the batch statistics."""
        return {"loss": F.cross_entropy(self.network(batch[0])[1], batch[1])}


class MCC(AdaptationLoss):
    """Minimum class confusion: pairs of classes should not share a row of the target."""

    def adaptation(self, source: Outputs, target: Outputs) -> Tensor:  # noqa: ARG002
        """Return the confusion."""
        return class_confusion(target[1])


def entropy(logits: Tensor) -> Tensor:
    """Return ``-Σ_k p_k log p_k`` in nats: ``(B, K)`` → ``(B,)``, each in 0 … log K."""
    log = F.log_softmax(logits, dim=1)
    return -(log.exp() * log).sum(dim=1)


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Return ``1 - mean_j C_jj / Σ_k C_jk`` with ``C = Σ_i w_i p_i p_iᵀ``: 0 … 1 - 1/K.

    ``p = softmax(logits / T)``, and ``w_i ∝ 1 + exp(-H(p_i))``, so that sure rows weigh more. C_jk
    says how much probability classes j and k have on the same rows; each class counts alike however
    many rows it has, so the domains' class shares may differ. T above 1 keeps sure rows from hiding
    the others. ``logits`` are ``(B, K)``.
    """
    scaled = logits / temperature
    probability = scaled.softmax(dim=1)
    weight = 1.0 + torch.exp(-entropy(scaled).detach())
    correlation = (probability * (weight / weight.mean()).unsqueeze(1)).T @ probability
    # A class that no row is thought to be of has a row of nearly zeros.
    shares = correlation / correlation.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return 1.0 - shares.diagonal().mean()


METHODS: dict[str, type[AdaptationLoss]] = {"adabn": AdaBN, "mcc": MCC}


def adapt(
    features: Tensor,
    labels: Tensor,
    target: Tensor,
    run: Run,
    *,
    method: type[AdaptationLoss] = MCC,
    settings: AdaptSettings | None = None,
) -> AdaptationNetwork:
    """Return a network, in ``eval`` mode, learned from the source's labels for the target.

    ``features (N, F)`` and ``target (M, F)``, without labels, are best few columns of a mean square
    of about 1; ``labels (N,)`` are int64 in 0 … K - 1.
    """
    settings = settings or AdaptSettings()
    total = settings.steps * settings.epochs

    def batches(_epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        size = (settings.steps, settings.batch_size)
        ours = torch.randint(len(features), size, generator=generator)
        theirs = torch.randint(len(target), size, generator=generator)
        for rows, others in zip(ours, theirs, strict=True):
            yield features[rows], labels[rows], target[others]

    # The network's start is part of the seed, without disturbing other random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = AdaptationNetwork(features.shape[1], int(labels.max()) + 1, settings)
        objective = method(network, total).to(features.device)
        optimizer = torch.optim.SGD(
            objective.parameters(),
            lr=settings.learning_rate,
            momentum=0.9,
            weight_decay=1e-3,
            nesterov=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + 10 * step / total) ** -0.75
        )
        fit("adapt", objective, batches, optimizer, run, epochs=settings.epochs, schedule=schedule)
    network.requires_grad_(requires_grad=False)
    if objective.target_statistics and len(target) > 1:
        network.norm.momentum = 1.0
        network.norm.train()
        network(target)
    return network.eval()


@dataclass(frozen=True)
class _Products:
    """All products, as a head and as the adaptation reads them."""

    embeddings: Tensor
    """``(N, 512)``, without what states the answer."""
    content: Tensor
    """``(N, 256)``: components of the frozen towers' features."""

    def differ(self, rows: Tensor, others: Tensor) -> bool:
        """Return whether a classifier tells the two sets of rows apart."""
        truth = np.repeat([0, 1], [len(rows), len(others)])
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        content = self.content[torch.cat([rows, others])].numpy()
        model = LogisticRegression(max_iter=200)
        areas = cross_val_score(model, content, truth, cv=folds, scoring="roc_auc")
        return float(areas.mean()) >= _DIFFERENT

    def fit(
        self, method: str, target: Tensor, rows: Tensor, others: Tensor, run: Run
    ) -> LinearHead:
        """Return a head learned from the classes of ``rows`` and the method's of ``others``."""
        if method != "none":
            ours, theirs = self.content[rows], self.content[others]
            network = adapt(ours, target[rows], theirs, run, method=METHODS[method])
            target = target.index_copy(0, others, network(theirs)[1].argmax(dim=1))
            rows = torch.cat([rows, others])
        return fit_probe(self.embeddings[rows], target[rows])

    def choose(
        self, name: HeadName, target: Tensor, others: Tensor, budget_s: float, run: Run
    ) -> Choice:
        """Choose a method by reverse validation; ``target`` is -1 for unlabelled."""
        quiet = Run(run.seed, run.console, quiet=True)

        def measure(candidate: Candidate) -> Score:
            def held(fold: Fold) -> float:
                weight, bias = self.fit(candidate.name, target, fold.learn, others, quiet)
                labels = (self.embeddings[others] @ weight.T + bias).argmax(dim=1)
                known = target.index_copy(0, others, labels)
                # The same way back for all methods, so that their labels alone differ.
                weight, bias = self.fit("adabn", known, others, fold.learn, quiet)
                predicted = (self.embeddings[fold.held] @ weight.T + bias).argmax(dim=1)
                return mean_recall(predicted, target[fold.held])

            return validation_folds(target, self.content, run.seed).score(held)

        candidates = [Candidate(method) for method in ("none", *METHODS)]
        return choose(f"adaptation of {name}", candidates, measure, "none", budget_s, run)


def adapt_heads(
    encoder: Encoder,
    table: FeatureTable,
    labels: dict[HeadName, HeadLabels],
    training: TrainingSettings,
    run: Run,
) -> tuple[list[FinetuneResult], list[Choice]]:
    """Adapt the heads of type, colour and material to products that state nothing, in place.

    The target's head is left out: its few labels are those of one category.
    """
    results: list[FinetuneResult] = []
    choices: list[Choice] = []
    held = held_out(len(table))
    for name in [name for name in STATED_BY if name in labels]:
        nothing = (table.attributes[:, columns(STATED_BY[name])] == 0).all(dim=1)
        others, method = nothing.nonzero().flatten(), str(training.adaptation)
        if method == "none" or len(others) < _MIN_UNLABELLED:
            continue
        products = _Products(embed(encoder, table, masked=STATED_BY[name]), _components(table))
        target = labels[name].target
        known = target.masked_fill(held, UNLABELLED)
        rows = known.ne(UNLABELLED).nonzero().flatten()
        if method == AUTO:
            if not products.differ(rows, others):
                continue
            choices.append(products.choose(name, known, others, training.budget_s, run))
            method = choices[-1].name
        if method != "none":
            fitted = products.fit(method, known, rows, others, run)
            tested = (held & target.ne(UNLABELLED)).nonzero().flatten()
            weight, bias = fitted
            head = cast(nn.Linear, encoder.heads[name])
            with torch.no_grad():
                # The last classes may have no labels.
                nn.init.zeros_(head.weight)[: len(weight)] = weight
                nn.init.constant_(head.bias, ABSENT)[: len(bias)] = bias
            accuracy = head_accuracy(encoder, table, name, target, tested)
            results.append(FinetuneResult([], {name: accuracy}, {name: len(tested)}))
    return results, choices


def _components(table: FeatureTable) -> Tensor:
    """Return ``(N, 256)`` principal components of all content, of mean square 1."""
    content = table.content().astype(np.float64)
    pca = PCA(min(256, *content.shape), svd_solver="covariance_eigh")
    found = pca.fit_transform(content)
    return torch.from_numpy(found / max(found.std(), 1e-6)).float()
