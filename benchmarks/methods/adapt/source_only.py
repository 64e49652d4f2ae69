"""No adaptation: what every method is compared with."""

from torch import Tensor

from benchmarks.methods.adapt.base import AdaptationLoss
from benchmarks.methods.adapt.domains import Labelled, Unlabelled

__all__ = ["SourceOnly"]


class SourceOnly(AdaptationLoss):
    """``L = CE(source)``; the target is not looked at."""

    target_statistics = False

    def forward(self, source: Labelled, target: Unlabelled) -> dict[str, Tensor]:  # noqa: ARG002
        """``loss`` alone."""
        return {"loss": self.classify(source)[2]}
