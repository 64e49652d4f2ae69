"""Domain-adversarial training (DANN: Ganin et al., JMLR 2016)."""

from torch import Tensor

from benchmarks.methods.adapt.base import AdaptationLoss
from benchmarks.methods.adapt.discriminator import Discriminator
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.network import AdaptationNetwork
from benchmarks.methods.adapt.reversal import ramp

__all__ = ["DANN"]


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
