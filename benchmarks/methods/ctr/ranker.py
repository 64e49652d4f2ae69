"""A click model in the place of any other ranker."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.methods.ctr.impressions import Impressions
from benchmarks.methods.ctr.table import FieldTable
from benchmarks.methods.ctr.xdeepfm import XDeepFM
from newshelf.evaluation.types import FloatArray, IntArray

__all__ = ["XDeepFMRanker"]


class XDeepFMRanker:
    """Scores the whole catalogue for a history, by an unknown user at one moment.

    Every product is looked up once and every history once; only their interaction is
    computed for each pair.

    Args:
        model: in ``eval`` mode.
        table: the one it was trained with.
        max_history: items of a history that are read, the latest ones.
        timestamp: epoch seconds of the question; -1 when the data have no time.
        name: what the report calls it.
    """

    def __init__(
        self,
        model: XDeepFM,
        table: FieldTable,
        max_history: int,
        timestamp: int = -1,
        name: str = "xDeepFM",
    ) -> None:
        self.name = name
        self._model = model
        self._table = table
        self._max_history = max_history
        self._timestamp = timestamp
        self._item_side = torch.from_numpy(table.item_side)
        items = np.arange(len(table.item_rows))
        nobody = np.full((len(items), 1), -1)
        self._items = self._looked_up(self._asked(items, nobody))

    @torch.inference_mode()
    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """``(len(histories), n_items)`` float32 logits."""
        window = np.full((len(histories), self._max_history), -1, dtype=np.int64)
        for row, history in enumerate(histories):
            latest = history[::-1][: self._max_history]
            window[row, : len(latest)] = latest
        vectors, weights = self._looked_up(self._asked(np.zeros(len(histories), np.int64), window))
        rows = []
        for vector, weight in zip(vectors, weights, strict=True):
            rows.append(
                self._model.interact(
                    torch.where(self._item_side.unsqueeze(1), self._items[0], vector),
                    torch.where(self._item_side, self._items[1], weight),
                )
            )
        scores: FloatArray = torch.stack(rows).numpy()
        return scores

    @torch.inference_mode()
    def _looked_up(self, rows: Impressions) -> tuple[Tensor, Tensor]:
        looked_up: tuple[Tensor, Tensor] = self._model.fields(*self._table.inputs(rows))
        return looked_up

    def _asked(self, items: IntArray, history: IntArray) -> Impressions:
        count = len(items)
        return Impressions(
            sequence=np.zeros(count, dtype=np.int64),
            user=np.zeros(count, dtype=np.int64),
            item=items,
            history=history,
            timestamp=np.full(count, self._timestamp, dtype=np.int64),
            label=np.zeros(count, dtype=np.float32),
        )
