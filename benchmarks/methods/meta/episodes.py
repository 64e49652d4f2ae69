"""Episodes of few-shot classification, and networks trained by them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.meta.learners import prototype_scores
from newshelf.errors import TrainingError
from newshelf.training.loop import Batches, Objective


class Episode(NamedTuple):
    """Row numbers and classes; with a leading dimension T when T episodes are stacked.

    An episode has N classes, of each k labelled rows (the support) and q rows to classify
    (the queries), all different (Vinyals et al., Matching Networks, 2016).
    """

    support: Tensor
    """``(N·k,)`` int64 rows, class by class."""
    support_labels: Tensor
    """``(N·k,)`` int64 in 0..N-1."""
    queries: Tensor
    """``(N·q,)`` int64 rows, class by class."""
    query_labels: Tensor
    """``(N·q,)`` int64 in 0..N-1."""


class EpisodeSampler:
    """Draws episodes from the rows of some classes.

    Args:
        labels: ``(R,)`` int64, the class of each row; negative for rows to leave out.
        ways: N, classes of an episode.
        shots: k, labelled rows of a class.
        queries: q, rows of a class to be classified.

    Raises:
        TrainingError: fewer than N classes have the k + q rows that an episode needs.
    """

    def __init__(self, labels: Tensor, *, ways: int, shots: int, queries: int) -> None:
        self.ways, self.shots, self.queries = ways, shots, queries
        classes = torch.unique(labels[labels >= 0]).tolist()
        rows = [torch.nonzero(labels == value).flatten() for value in classes]
        self._rows = [of_class for of_class in rows if len(of_class) >= shots + queries]
        if len(self._rows) < ways:
            largest = sorted((len(of_class) for of_class in rows), reverse=True)[:ways]
            raise TrainingError(
                f"{len(self._rows)} of {len(classes)} classes have the {shots} + {queries} rows "
                f"that an episode needs, {ways} must (the largest have {largest}): label more "
                "rows, or ask for fewer shots, queries or classes"
            )

    def draw(self, generator: torch.Generator) -> Episode:
        """One episode."""
        picked = torch.randperm(len(self._rows), generator=generator)[: self.ways].tolist()
        each = self.shots + self.queries
        rows = torch.stack(
            [
                self._rows[at][torch.randperm(len(self._rows[at]), generator=generator)[:each]]
                for at in picked
            ]
        )
        number = torch.arange(self.ways)
        return Episode(
            rows[:, : self.shots].flatten(),
            number.repeat_interleave(self.shots),
            rows[:, self.shots :].flatten(),
            number.repeat_interleave(self.queries),
        )

    def batches(self, *, tasks: int, steps: int) -> Batches:
        """For ``fit``: an epoch of ``steps`` batches, each of ``tasks`` stacked episodes."""

        def of_epoch(epoch: int, generator: torch.Generator) -> list[Episode]:  # noqa: ARG001
            return [
                stack_episodes([self.draw(generator) for _ in range(tasks)]) for _ in range(steps)
            ]

        return of_epoch


def stack_episodes(episodes: Sequence[Episode]) -> Episode:
    """T episodes of one shape as a single one, ``(T, …)`` each."""
    return Episode(*(torch.stack(parts) for parts in zip(*episodes, strict=True)))


class ResidualAdapter(nn.Module):
    """``z = s · x̂``, with ``x̂`` the unit vector of ``x + B · gelu(A · x)``.

    ``B`` begins at zero, so that training starts from the frozen features themselves
    (Houlsby et al., adapters, 2019). ``s`` is a learned length, the inverse temperature of
    distances and cosines.

    Shape: ``(…, features)`` → ``(…, features)``.
    """

    def __init__(self, features: int, hidden: int = 256, scale: float = 4.0) -> None:
        super().__init__()
        self.down = nn.Linear(features, hidden)
        self.up = nn.Linear(hidden, features)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Embed rows of features."""
        moved: Tensor = features + self.up(F.gelu(self.down(features)))
        return F.normalize(moved, dim=-1) * self.log_scale.exp()


class FewShotNet(nn.Module):
    """Adapter and an N-way linear head: ``(R, features)`` → ``(R, ways)`` logits."""

    def __init__(self, adapter: ResidualAdapter, ways: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.head = nn.Linear(adapter.up.out_features, ways)
        # Every class starts alike: which one is called 0 is drawn in every episode.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.adapter(features))
        return logits


class AllTypes(Objective):
    """Cosine classification among all meta-training types (Baseline++, Chen et al., 2019).

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
