"""Losses of domain adaptation: one class per method.

Sources: AdaBN (Li et al., Pattern Recognition 2018), DAN (Long et al., ICML 2015), DANN (Ganin et
al., JMLR 2016), CDAN+E (Long et al., NeurIPS 2018), MCC (Jin et al., ECCV 2020), RTN (Long et al.,
NeurIPS 2016); maximum mean discrepancy with several kernels (Gretton et al., 2012).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.network import AdaptationNetwork, Discriminator, ramp


class AdaptationLoss(nn.Module, ABC):
    """A method: what is minimised on a labelled and an unlabelled batch.

    A method holds the shared network, and anything else it needs (a discriminator, a
    residual layer), as submodules: all are trained.
    """

    target_statistics = True
    """Normalise by the target's mean and variance in the end (AdaBN), as in its batches."""

    def __init__(self, network: AdaptationNetwork) -> None:
        super().__init__()
        self.network = network
        self.progress = 0.0
        """Share of the training that is done, 0 … 1; whoever trains sets it."""

    @abstractmethod
    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """Losses of a batch by name, each a scalar; ``loss`` is their weighted sum.

        The two batches may differ in size.
        """

    def classify(self, source: Labelled) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding ``(B, H)``, logits ``(B, K)`` and cross-entropy ``()`` of the source."""
        embedding, logits = self.network(source.features)
        return embedding, logits, F.cross_entropy(logits, source.target)


FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths, relative to the mean squared distance of the two batches."""


def kernels(rows: Tensor, factors: Sequence[float] = FACTORS) -> Tensor:
    """``K_ij = mean_f exp(-|x_i - x_j|² / (f b))``, ``b`` the mean of ``|x_i - x_j|²``, i ≠ j.

    ``b`` is a constant to the gradient.

    Shape: ``(N, D)`` → ``(N, N)``, each in 0 … 1.
    """
    # Not torch.cdist: the gradient of its root is not finite where two rows are equal.
    square = (rows * rows).sum(dim=1)
    distance = (square.unsqueeze(1) + square - 2 * rows @ rows.T).clamp(min=0.0)
    count = len(rows) * (len(rows) - 1)
    bandwidth = (distance.detach().sum() / max(count, 1)).clamp(min=1e-12)
    total = torch.zeros_like(distance)
    for factor in factors:
        total = total + torch.exp(-distance / (factor * bandwidth))
    return total / len(factors)


def mk_mmd(source: Tensor, target: Tensor, factors: Sequence[float] = FACTORS) -> Tensor:
    """``MMD² = mean k(s, s') + mean k(t, t') - 2 mean k(s, t)``.

    The biased estimator, so never below 0; 0 where the two batches are the same rows.

    Shape: ``(N, D)`` and ``(M, D)`` float32 → ``()``.
    """
    return discrepancy(kernels(torch.cat([source, target]), factors), len(source))


def discrepancy(matrix: Tensor, sources: int) -> Tensor:
    """MMD² from a kernel matrix ``(N + M, N + M)`` whose first N rows are the source's."""
    within = matrix[:sources, :sources].mean() + matrix[sources:, sources:].mean()
    return within - 2 * matrix[:sources, sources:].mean()


def entropy(logits: Tensor) -> Tensor:
    """``H(x) = -Σ_k p_k log p_k`` with ``p = softmax(logits)``, in nats.

    Shape: ``(B, K)`` → ``(B,)``, each in 0 … log K.
    """
    log = F.log_softmax(logits, dim=1)
    return -(log.exp() * log).sum(dim=1)


class SourceOnly(AdaptationLoss):
    """``L = CE(source)``; the target is not looked at."""

    target_statistics = False

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:  # noqa: ARG002
        """``loss`` alone."""
        return {"loss": self.classify(source)[2]}


class AdaBN(SourceOnly):
    """``L = CE(source)``, then the target's own mean and variance in batch normalisation.

    The least an adaptation can do: no loss looks at the target.
    """

    target_statistics = True


class DAN(AdaptationLoss):
    """``L = CE(source) + λ Σ_l MMD²(l(source), l(target))``, l the task's own layers.

    These are the bottleneck and the classifier's probabilities. λ is ramped from 0 to 1.
    """

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """``loss``, ``classification`` and ``discrepancy`` (both layers' sum)."""
        embedding, logits, classification = self.classify(source)
        other, other_logits = self.network(target.features)
        gap = mk_mmd(embedding, other) + mk_mmd(logits.softmax(1), other_logits.softmax(1))
        return {
            "loss": classification + ramp(self.progress) * gap,
            "classification": classification,
            "discrepancy": gap,
        }


class DANN(AdaptationLoss):
    """``min_f,g max_d  CE(g(f(x_s))) - λ BCE(d(f(x)))``, with λ ramped from 0 to 1.

    The embedding f must serve the classifier g and tell the discriminator d nothing.
    """

    def __init__(self, network: AdaptationNetwork) -> None:
        super().__init__(network)
        self.discriminator = Discriminator(network.bottleneck, network.bottleneck)

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """``loss``, ``classification`` and ``domain``: log 2 when nobody tells them apart."""
        embedding, _, classification = self.classify(source)
        other, _ = self.network(target.features)
        domain = self.discriminator(embedding, other, ramp(self.progress))
        return {
            "loss": classification + domain,
            "classification": classification,
            "domain": domain,
        }


_WIDEST = 4096
"""Above, the outer product is replaced by random projections, as in the paper."""


class CDAN(AdaptationLoss):
    """DANN whose discriminator sees ``z ⊗ p``: the embedding by predicted class.

    So the domains are aligned class by class. Rows of uncertain prediction weigh less:
    ``w = 1 + exp(-H(p))``. Where ``H · K > 4096``, ``z ⊗ p`` is approximated by
    ``(R_z z) ⊙ (R_p p) / √4096`` with fixed normal matrices.
    """

    project_embedding: Tensor | None
    project_classes: Tensor | None

    def __init__(self, network: AdaptationNetwork) -> None:
        super().__init__(network)
        width = network.bottleneck * network.classes
        embedding = classes = None
        if width > _WIDEST:
            embedding = torch.randn(network.bottleneck, _WIDEST)
            classes = torch.randn(network.classes, _WIDEST)
            width = _WIDEST
        self.register_buffer("project_embedding", embedding)
        self.register_buffer("project_classes", classes)
        self.discriminator = Discriminator(width, network.bottleneck)

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """``loss``, ``classification`` and ``domain``."""
        embedding, logits, classification = self.classify(source)
        other, other_logits = self.network(target.features)
        weight = 1.0 + torch.exp(-entropy(torch.cat([logits, other_logits])))
        domain = self.discriminator(
            self.conditioned(embedding, logits),
            self.conditioned(other, other_logits),
            ramp(self.progress),
            weight.detach(),
        )
        return {
            "loss": classification + domain,
            "classification": classification,
            "domain": domain,
        }

    def conditioned(self, embedding: Tensor, logits: Tensor) -> Tensor:
        """``(B, H)`` and ``(B, K)`` → ``(B, H · K)`` or ``(B, 4096)``."""
        # As in the authors' code, the adversary does not reach the classifier.
        classes = logits.softmax(dim=1).detach()
        if self.project_embedding is None or self.project_classes is None:
            return (classes.unsqueeze(2) * embedding.unsqueeze(1)).flatten(1)
        scale: float = _WIDEST**-0.5
        return (embedding @ self.project_embedding) * (classes @ self.project_classes) * scale


_TEMPERATURE = 2.5


class MCC(AdaptationLoss):
    """``L = CE(source) + confusion(target)``: pairs of classes should not share a row."""

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """``loss``, ``classification`` and ``confusion``."""
        _, _, classification = self.classify(source)
        _, logits = self.network(target.features)
        confusion = class_confusion(logits)
        return {
            "loss": classification + confusion,
            "classification": classification,
            "confusion": confusion,
        }


def class_confusion(logits: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """``1 - mean_j C_jj / Σ_k C_jk`` with ``C = Σ_i w_i p_i p_iᵀ``: 0 … 1 - 1/K.

    ``p = softmax(logits / T)``, and ``w_i ∝ 1 + exp(-H(p_i))``, so that sure rows weigh
    more. C_jk says how much probability classes j and k have on the same rows; each class
    counts alike however many rows it has, so the domains' class shares may differ.

    ``logits`` are ``(B, K)``; T above 1 keeps sure rows from hiding the others.
    """
    scaled = logits / temperature
    probability = scaled.softmax(dim=1)
    weight = 1.0 + torch.exp(-entropy(scaled).detach())
    weight = weight / weight.sum() * len(logits)
    correlation = (probability * weight.unsqueeze(1)).T @ probability
    # A class that no row is thought to be of has a row of nearly zeros.
    shares = correlation / correlation.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return 1.0 - shares.diagonal().mean()


_WEIGHT = 0.3
"""Of the discrepancy and of the entropy, as in the paper."""


class RTN(AdaptationLoss):
    """The source's classifier is the target's plus a small residual: ``f_s = f_t + Δ(f_t)``.

    ``L = CE(f_s(x_s)) + γ mean H(f_t(x_t)) + λ MMD²``, with the kernel
    ``k((z, p), (z', p')) = k(z, z') k(p, p')`` on embedding and probabilities together,
    and λ = γ = 0.3. Δ has two layers and starts at 0. ``network.classifier`` is f_t.
    """

    def __init__(self, network: AdaptationNetwork) -> None:
        super().__init__(network)
        classes = network.classes
        last = nn.Linear(classes, classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(nn.Linear(classes, classes), nn.ReLU(), last)

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:
        """``loss``, ``classification``, ``entropy`` and ``discrepancy``."""
        embedding, logits = self.network(source.features)
        other, other_logits = self.network(target.features)
        source_logits = logits + self.residual(logits)
        classification = F.cross_entropy(source_logits, source.target)
        uncertainty = entropy(other_logits).mean()
        matrix = _both(embedding, other) * _both(source_logits.softmax(1), other_logits.softmax(1))
        gap = discrepancy(matrix, len(embedding))
        weight = _WEIGHT * ramp(self.progress)
        return {
            "loss": classification + weight * (gap + uncertainty),
            "classification": classification,
            "entropy": uncertainty,
            "discrepancy": gap,
        }


def _both(source: Tensor, target: Tensor) -> Tensor:
    return kernels(torch.cat([source, target]))
