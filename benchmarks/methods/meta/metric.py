"""Meta-training a space for prototypes: first all types at once, then episodes.

First a cosine classifier over all meta-training types (Baseline++, Chen et al., 2019), whose
classes are many and whose batches are cheap; then episodes, in which the embedding is used
as it will be (Prototypical Networks, Snell et al., 2017, with the learned temperature of
Meta-Baseline, Chen et al., 2021)::

    loss = -log softmax_n(cos(z, c_n) · s)[label]
"""

import math

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from benchmarks.methods.meta.episodes import Episode
from benchmarks.methods.meta.network import ResidualAdapter
from benchmarks.methods.meta.prototypes import class_means, prototype_scores
from newshelf.transfer.loop import Objective

__all__ = ["AllTypes", "EpisodePrototypes"]


class AllTypes(Objective):
    """Cosine classification among all meta-training types.

    Args:
        adapter: trained in place.
        features: ``(R, F)`` float32.
        labels: ``(R,)`` int64 in 0..C-1.
        drop: share of the features hidden from a row, against learning by heart.

    A batch is ``(B,)`` int64 rows.
    """

    features: Tensor
    labels: Tensor

    def __init__(
        self, adapter: ResidualAdapter, features: Tensor, labels: Tensor, drop: float = 0.3
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.drop = nn.Dropout(drop)
        width = adapter.up.out_features
        self.classes = nn.Parameter(torch.randn(int(labels.max()) + 1, width) / width**0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the cosines."""
        rows = self.adapter(self.drop(self.features[batch]))
        logits = prototype_scores(rows, self.classes, "cosine") * self.log_scale.exp()
        return {"loss": F.cross_entropy(logits, self.labels[batch])}


class EpisodePrototypes(Objective):
    """Prototypical episodes on an adapter, trained in place.

    Args:
        adapter: from :class:`AllTypes`, or a fresh one.
        features: ``(R, F)`` float32; episodes hold its row numbers.
        ways: N.
    """

    features: Tensor

    def __init__(self, adapter: ResidualAdapter, features: Tensor, ways: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.ways = ways
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.register_buffer("features", features, persistent=False)

    def forward(self, batch: Episode) -> dict[str, Tensor]:
        """Cross-entropy of T stacked episodes' queries."""
        support = self.adapter(self.features[batch.support])
        queries = self.adapter(self.features[batch.queries])
        logits = vmap(self._logits)(support, batch.support_labels, queries)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.query_labels.flatten())
        return {"loss": loss}

    def _logits(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        means = class_means(support, labels, self.ways)
        return prototype_scores(queries, means, "cosine") * self.log_scale.exp()
