"""What is compared between variants: one metric per file, each from the totals of units."""

from newshelf.rollout.metrics.compare import Lift, compare
from newshelf.rollout.metrics.ctr import CTR
from newshelf.rollout.metrics.cvr import CVR
from newshelf.rollout.metrics.metric import Metric
from newshelf.rollout.metrics.ndcg import NDCG
from newshelf.rollout.metrics.revenue import REVENUE_PER_UNIT

__all__ = ["METRICS", "Lift", "Metric", "compare"]

METRICS = {metric.name: metric for metric in (CTR, CVR, REVENUE_PER_UNIT, NDCG)}
"""By the name that a plan gives them."""
