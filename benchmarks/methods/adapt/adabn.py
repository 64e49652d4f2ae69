"""Adaptive batch normalisation (AdaBN: Li et al., Pattern Recognition 2018)."""

from benchmarks.methods.adapt.source_only import SourceOnly

__all__ = ["AdaBN"]


class AdaBN(SourceOnly):
    """``L = CE(source)``, then the target's own mean and variance in batch normalisation.

    The least an adaptation can do: no loss looks at the target.
    """

    target_statistics = True
