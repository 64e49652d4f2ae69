"""Domain adaptation of heads to products that look different and state nothing.

Photographs of other sellers, for example: a classifier that has learned from the labelled products
and, without labels, from these (AdaBN, Li et al., 2018; MCC, Jin et al., 2020) labels them, and the
head learns from all. It stays one linear layer, so that what was validated is what is served.

Without labels there, validation is reversed (Zhong et al., ECML 2010): a head learned from labelled
products labels the others; one learned from these must be right on labelled ones held out.

Sources of the losses: AdaBN (Li et al., Pattern Recognition 2018), DAN (Long et al., ICML 2015),
DANN (Ganin et al., JMLR 2016), CDAN+E (Long et al., NeurIPS 2018), MCC (Jin et al., ECCV 2020), RTN
(Long et al., NeurIPS 2016); maximum mean discrepancy with several kernels (Gretton et al., 2012).
"""

import math
from abc import ABC, abstractmethod
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
from newshelf.training.choose import AUTO, Candidate, Choice, Fold, by_recall, choose
from newshelf.training.features import FeatureTable
from newshelf.training.few_shot import LinearHead, fit_probe, predict_class, set_head
from newshelf.training.finetune import (
    STATED_BY,
    FinetuneResult,
    columns,
    embed,
    head_accuracy,
    held_out,
)
from newshelf.training.labels import UNLABELLED, HeadLabels
from newshelf.training.loop import Objective, fit
from newshelf.training.run import Run

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
    """A method's loss, trained with the network.

    A batch is the source's features ``(B, F)`` and labels ``(B,)``, and the target's features; the
    two domains may differ in size. ``steps`` is the length of the training.
    """

    target_statistics = True
    """Normalise by the target's mean and variance in the end, as in its batches."""

    def __init__(self, network: AdaptationNetwork, steps: int) -> None:
        super().__init__()
        self.network = network
        self.steps = steps


class AlignmentLoss(AdaptationLoss, ABC):
    """``L = CE(source) + adaptation(source, target)``."""

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and ``adaptation``, its second term."""
        (embedding, logits), theirs = self.network(batch[0]), self.network(batch[2])
        logits = self.classified(logits)
        adaptation = self.adaptation((embedding, logits), theirs)
        return {"loss": F.cross_entropy(logits, batch[1]) + adaptation, "adaptation": adaptation}

    def classified(self, logits: Tensor) -> Tensor:
        """Return the logits of the source's own classifier, given those of the network's."""
        return logits

    @abstractmethod
    def adaptation(self, source: Outputs, target: Outputs) -> Tensor:
        """Return the weighted term that looks at the target, a scalar."""


class AdaBN(AdaptationLoss):
    """``L = CE(source)``, then the target's own mean and variance in batch normalisation."""

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` alone; the target is kept out of the batch statistics."""
        return {"loss": F.cross_entropy(self.network(batch[0])[1], batch[1])}


class MCC(AlignmentLoss):
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


class RampedLoss(AlignmentLoss):
    """Counts the steps, for a term that starts at 0."""

    step: Tensor

    def __init__(self, network: AdaptationNetwork, steps: int) -> None:
        super().__init__(network, steps)
        # A buffer, so that a resumed training continues with it.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and ``adaptation``, and count the step."""
        losses = super().forward(batch)
        self.step += 1
        return losses

    @property
    def ramp(self) -> float:
        """``2 / (1 + exp(-10 p)) - 1``: from 0 to 1 as training goes from p = 0 to 1.

        A discriminator that has learned nothing yet would only add noise to the features.
        """
        return 2.0 / (1.0 + math.exp(-10.0 * int(self.step) / self.steps)) - 1.0


FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths, relative to the mean squared distance of the two batches."""


def kernels(source: Tensor, target: Tensor) -> Tensor:
    """Return ``K_ij = mean_f exp(-|x_i - x_j|² / (f b))`` of the rows of both batches.

    ``b`` is the mean of ``|x_i - x_j|²``, i ≠ j, a constant to the gradient.
    ``(N, D)`` and ``(M, D)`` → ``(N + M, N + M)``, each in 0 … 1.
    """
    rows = torch.cat([source, target])
    # Not torch.cdist: the gradient of its root is not finite where two rows are equal.
    square = (rows * rows).sum(dim=1)
    distance = (square.unsqueeze(1) + square - 2 * rows @ rows.T).clamp(min=0.0)
    count = len(rows) * (len(rows) - 1)
    bandwidth = (distance.detach().sum() / max(count, 1)).clamp(min=1e-12)
    return torch.stack([torch.exp(-distance / (f * bandwidth)) for f in FACTORS]).mean(dim=0)


def discrepancy(matrix: Tensor, sources: int) -> Tensor:
    """Return ``MMD² = mean k(s, s') + mean k(t, t') - 2 mean k(s, t)``, never below 0.

    ``matrix`` is a kernel matrix ``(N + M, N + M)`` whose first N rows are the source's.
    """
    within = matrix[:sources, :sources].mean() + matrix[sources:, sources:].mean()
    return within - 2 * matrix[:sources, sources:].mean()


def _both_kernels(source: Outputs, target: Outputs) -> Outputs:
    """Return the kernel matrices of the embeddings and of the probabilities."""
    probabilities = kernels(source[1].softmax(dim=1), target[1].softmax(dim=1))
    return kernels(source[0], target[0]), probabilities


class DAN(RampedLoss):
    """The discrepancy of the embeddings plus that of the probabilities, ramped."""

    def adaptation(self, source: Outputs, target: Outputs) -> Tensor:
        """Return the weighted discrepancy."""
        gaps = [discrepancy(matrix, len(source[0])) for matrix in _both_kernels(source, target)]
        return self.ramp * (gaps[0] + gaps[1])


def reverse_gradient(features: Tensor, scale: float) -> Tensor:
    """Return ``features`` with the gradient ``-scale · I``."""
    return features.detach() + scale * (features.detach() - features)


class DANN(RampedLoss):
    """``max_d -λ BCE(d(f(x)))``, with λ ramped: the embedding f must not tell the domains apart.

    ``width`` is that of the discriminator's input, if it is not the embedding.
    """

    def __init__(self, network: AdaptationNetwork, steps: int, width: int | None = None) -> None:
        super().__init__(network, steps)
        hidden = network.norm.num_features
        self.discriminator = nn.Sequential(
            nn.Linear(width or hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def adaptation(self, source: Outputs, target: Outputs) -> Tensor:
        """Return the cross-entropy of the discriminator, each domain weighing half."""
        sources = len(source[0])
        both = torch.cat([source[0], target[0]]), torch.cat([source[1], target[1]])
        said = self.discriminator(reverse_gradient(self.shown(*both), self.ramp)).squeeze(1)
        truth = (torch.arange(len(said), device=said.device) < sources).to(said.dtype)
        losses = F.binary_cross_entropy_with_logits(said, truth, reduction="none")
        weight = self.weights(both[1])
        halves = [
            (losses[half] * weight[half]).sum() / weight[half].sum()
            for half in (slice(sources), slice(sources, None))
        ]
        return (halves[0] + halves[1]) / 2

    def shown(self, embedding: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        """Return the discriminator's input."""
        return embedding

    def weights(self, logits: Tensor) -> Tensor:
        """Return ``(B,)`` weights of the rows within their domain."""
        return torch.ones_like(logits[:, 0])


_WIDEST = 4096


class CDAN(DANN):
    """DANN whose discriminator sees ``z ⊗ p``: the embedding by predicted class.

    So the domains are aligned class by class. Rows of uncertain prediction weigh less:
    ``w = 1 + exp(-H(p))``. Where ``H · K > 4096``, ``z ⊗ p`` is approximated by
    ``(R_z z) ⊙ (R_p p) / √4096`` with fixed normal matrices.
    """

    projections: Tensor | None
    """R_z and R_p, ``(H + K, 4096)``."""

    def __init__(self, network: AdaptationNetwork, steps: int) -> None:
        hidden, classes = network.norm.num_features, network.classifier.out_features
        width = hidden * classes
        super().__init__(network, steps, min(width, _WIDEST))
        wide = torch.randn(hidden + classes, _WIDEST) if width > _WIDEST else None
        self.register_buffer("projections", wide)

    def shown(self, embedding: Tensor, logits: Tensor) -> Tensor:
        """``(B, H)`` and ``(B, K)`` → ``(B, H · K)`` or ``(B, 4096)``."""
        # As in the authors' code, the adversary does not reach the classifier.
        classes = logits.softmax(dim=1).detach()
        if self.projections is None:
            return (classes.unsqueeze(2) * embedding.unsqueeze(1)).flatten(1)
        widths = [embedding.shape[1], classes.shape[1]]
        of_embedding, of_classes = torch.split(self.projections, widths)
        seen: Tensor = (embedding @ of_embedding) * (classes @ of_classes) * _WIDEST**-0.5
        return seen

    def weights(self, logits: Tensor) -> Tensor:
        """Return ``1 + exp(-H(p))``."""
        return 1.0 + torch.exp(-entropy(logits)).detach()


class RTN(RampedLoss):
    """The source's classifier is the target's plus a small residual: ``f_s = f_t + Δ(f_t)``.

    The discrepancy, with the kernel ``k(z, z') k(p, p')`` on embedding and probabilities together,
    and the target's mean entropy are added, both with the weight 0.3 of the paper, ramped. Δ has
    two layers and starts at 0.
    """

    def __init__(self, network: AdaptationNetwork, steps: int) -> None:
        super().__init__(network, steps)
        classes = network.classifier.out_features
        last = nn.Linear(classes, classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(nn.Linear(classes, classes), nn.ReLU(), last)

    def classified(self, logits: Tensor) -> Tensor:
        """Return the logits with the residual."""
        residual: Tensor = self.residual(logits)
        return logits + residual

    def adaptation(self, source: Outputs, target: Outputs) -> Tensor:
        """Return the weighted sum of discrepancy and entropy."""
        embeddings, probabilities = _both_kernels(source, target)
        gap = discrepancy(embeddings * probabilities, len(source[0]))
        return 0.3 * self.ramp * (gap + entropy(target[1]).mean())


METHODS: dict[str, type[AdaptationLoss]] = {
    "adabn": AdaBN,
    "dann": DANN,
    "rtn": RTN,
    "dan": DAN,
    "cdan": CDAN,
    "mcc": MCC,
}


_MIN_UNLABELLED = 50
"""Products that state nothing, below which a head is not adapted to them."""
_TRIED = ("adabn", "mcc")
"""Methods that ``auto`` compares with none."""
_DIFFERENT = 0.75
"""Area under the ROC curve of a classifier that tells them from labelled products."""


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

        def predict(method: str, fold: Fold) -> Tensor:
            head = self.fit(method, target, fold.learn, others, quiet)
            labels = predict_class(head, self.embeddings[others])
            known = target.index_copy(0, others, labels)
            # The same way back for all methods, so that their labels alone differ.
            head = self.fit("adabn", known, others, fold.learn, quiet)
            return predict_class(head, self.embeddings[fold.held])

        measure = by_recall(target, self.content, run.seed, predict)
        candidates = [Candidate(method) for method in ("none", *_TRIED)]
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
            set_head(cast(nn.Linear, encoder.heads[name]), fitted)
            accuracy = head_accuracy(encoder, table, name, target, tested)
            results.append(FinetuneResult([], {name: accuracy}, {name: len(tested)}))
    return results, choices


def _components(table: FeatureTable) -> Tensor:
    """Return ``(N, 256)`` principal components of all content, of mean square 1."""
    content = table.content().astype(np.float64)
    pca = PCA(min(256, *content.shape), svd_solver="covariance_eigh")
    found = pca.fit_transform(content)
    return torch.from_numpy(found / max(found.std(), 1e-6)).float()
