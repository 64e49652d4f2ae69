"""Residual transfer network (RTN: Long et al., NeurIPS 2016)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.adapt.base import AdaptationLoss
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.entropy import entropy
from benchmarks.methods.adapt.mmd import discrepancy, kernels
from benchmarks.methods.adapt.network import AdaptationNetwork
from benchmarks.methods.adapt.reversal import ramp

__all__ = ["RTN"]

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
