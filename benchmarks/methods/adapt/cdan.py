"""Conditional domain-adversarial training (CDAN+E: Long et al., NeurIPS 2018)."""

import torch
from torch import Tensor

from benchmarks.methods.adapt.base import AdaptationLoss
from benchmarks.methods.adapt.discriminator import Discriminator
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.entropy import entropy
from benchmarks.methods.adapt.network import AdaptationNetwork
from benchmarks.methods.adapt.reversal import ramp

__all__ = ["CDAN"]

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
