"""Conversion rate: purchases for each answer.

Not for each click, as it is often defined: a version that earns more clicks would lower that
share with every shopper whom it wins, and be called worse for it.
"""

from newshelf.rollout.metrics.metric import Metric

__all__ = ["CVR"]

CVR = Metric("cvr", numerator="purchases", denominator="requests")
"""Σ purchases / Σ answers that showed something."""
