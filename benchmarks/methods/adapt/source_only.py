"""The source alone, by the network of domain adaptation, for comparison."""

from newshelf.training.adaptation import METHODS as ADAPTATIONS
from newshelf.training.adaptation import AdaBN, AdaptationLoss


class SourceOnly(AdaBN):
    """``L = CE(source)``, with the source's statistics; the target is not looked at."""

    target_statistics = False


METHODS: dict[str, type[AdaptationLoss]] = {"source-only": SourceOnly, **ADAPTATIONS}
DEFAULT = "mcc"
