"""The Siamese scorer of candidates against a shopper's history."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.nn.spec import ScorerSpec


class Projector(nn.Module):
    """The shared projection of history and candidates: ``(N, embedding)`` → unit ``(N, width)``."""

    def __init__(self, spec: ScorerSpec, embedding: int) -> None:
        super().__init__()
        self.skip = nn.Linear(embedding, spec.width, bias=False)
        self.deep = nn.Sequential(
            nn.Linear(embedding, spec.hidden),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, spec.width),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Project onto the unit sphere."""
        projected: Tensor = self.skip(embedding) + self.deep(embedding)
        return F.normalize(projected, dim=-1)


class HistoryScorer(nn.Module):
    """Pools the history with attention to the candidate, and compares it with the candidate.

    For a candidate ``c`` and history ``h_1 … h_H`` of unit vectors::

        a_i = softmax_i(sharpness · c·h_i)        (Deep Interest Network, Zhou et al., 2018)
        score = c · Σ_i a_i h_i · weight + c · mean_i h_i · (1 - weight)

    times a learned scale. ``sharpness``, ``weight`` and the scale are learned scalars.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(4.0)))
        self.weight_logit = nn.Parameter(torch.tensor(0.0))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(
        self, history: Tensor, history_mask: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score every candidate of a row against the row's history.

        Args:
            history: ``(B, H, width)`` float32, unit vectors; masked ones may be anything.
            history_mask: ``(B, H)`` bool, True for items.
            candidates: ``(B, C, width)`` float32, unit vectors.

        Returns:
            ``scores (B, C)``, unbounded, higher is better, 0 for an empty history; and
            ``attention (B, C, H)``, the weights of the history items.
        """
        return self.pool(candidates @ history.transpose(1, 2), history_mask.unsqueeze(1))

    def pool(self, similarity: Tensor, history_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Score by the similarities ``(…, H)`` of a candidate to the items of a history."""
        mask = history_mask.to(similarity.dtype)
        # Masked places count as 0 whatever they hold.
        similarity = similarity.masked_fill(~history_mask, 0.0)
        logits = similarity * self.log_sharpness.exp()
        # A finite floor and a product with the mask avoid NaN for an empty history.
        attention = (logits + (mask - 1.0) * 1e4).softmax(dim=-1) * mask
        attended = (attention * similarity).sum(dim=-1)
        mean = similarity.sum(dim=-1) / mask.sum(dim=-1).clamp(min=1.0)
        return self.pooled(attended, mean), attention

    def pooled(self, attended: Tensor, mean: Tensor) -> Tensor:
        """Return the scores by the similarities to the attended items and to all, on average."""
        weight = self.weight_logit.sigmoid()
        return (weight * attended + (1.0 - weight) * mean) * self.log_scale.exp()


class SiameseScorer(nn.Module):
    """Projector and history scorer, trained together."""

    def __init__(self, spec: ScorerSpec, embedding: int, temperature: float = 0.07) -> None:
        super().__init__()
        self.spec = spec
        self.project = Projector(spec, embedding)
        self.score = HistoryScorer(temperature)

    def forward(self, history: Tensor, history_mask: Tensor, candidates: Tensor) -> Tensor:
        """``(B, H, 512)``, ``(B, H)`` bool and ``(B, C, 512)`` → ``(B, C)`` scores."""
        scores: Tensor
        scores, _ = self.score(self.project(history), history_mask, self.project(candidates))
        return scores
