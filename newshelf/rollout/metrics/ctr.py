"""Click-through rate: clicked products of the shown ones."""

from newshelf.rollout.metrics.metric import Metric

__all__ = ["CTR"]

CTR = Metric("ctr", numerator="clicks", denominator="shown")
"""Σ clicks / Σ shown products."""
