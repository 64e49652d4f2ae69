"""Deep adaptation network: matched embeddings and predictions (DAN: Long et al., ICML 2015)."""

from torch import Tensor

from benchmarks.methods.adapt.base import AdaptationLoss
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.mmd import mk_mmd
from benchmarks.methods.adapt.reversal import ramp

__all__ = ["DAN"]


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
