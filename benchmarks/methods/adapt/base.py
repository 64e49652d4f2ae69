"""The one interface of all adaptation methods."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.network import AdaptationNetwork

__all__ = ["AdaptationLoss"]


class AdaptationLoss(nn.Module, ABC):
    """A method: what is minimised on a labelled and an unlabelled batch.

    A method holds the shared network, and whatever it needs beside it (a discriminator, a
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
