"""Online NDCG: how far up in the answers the clicks are.

Answers without a click say nothing about order, and are left out. A version that earns clicks
where there were none changes which answers count; read it beside the click-through rate.
"""

from newshelf.rollout.metrics.metric import Metric

__all__ = ["NDCG"]

NDCG = Metric("ndcg", numerator="ndcg", denominator="ndcg_requests")
"""Σ NDCG of the clicked positions / Σ answers with a click."""
