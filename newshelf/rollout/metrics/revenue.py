"""Revenue for each unit, those that bought nothing included."""

from newshelf.rollout.metrics.metric import Metric

__all__ = ["REVENUE_PER_UNIT"]

REVENUE_PER_UNIT = Metric("revenue_per_unit", numerator="revenue", denominator=None)
"""Σ revenue / units, in the shop's currency."""
