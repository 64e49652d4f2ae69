"""What was taken together, as sparse item-to-item links.

With ``X`` the incidence of the training (one row a shopper or a basket), older entries
fading by half every ``half_life_days``::

    P = (XᵀX + λI)⁻¹,  B_ij = -P_ij / P_jj (i ≠ j)        EASE (Steck, WWW 2019)

``newshelf.nn.blend`` carries them over to items like those.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from newshelf.evaluation.ease_weights import ease_weights

__all__ = ["Taken", "direct_links"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

_DAY_S = 86_400


@dataclass(frozen=True, eq=False)
class Taken:
    """The training interactions as an incidence matrix."""

    weights: sparse.csr_array
    """``(sequences, N)`` float64 in 0..1: 1 when taken just now, fading with age."""
    last: IntArray | None
    """``(sequences,)`` the last moment of each in epoch seconds; None without time."""

    @classmethod
    def of(
        cls,
        sequences: Sequence[IntArray],
        timestamps: Sequence[IntArray] | None,
        n_items: int,
        half_life_days: float,
    ) -> "Taken":
        """Of an item met again, the latest time counts."""
        rows = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
        items = np.concatenate([np.empty(0, dtype=np.int64), *sequences])
        weights = np.ones(len(items))
        last = None
        if timestamps is not None:
            stamps = np.concatenate([np.empty(0, dtype=np.int64), *timestamps])
            age_days = (stamps.max(initial=0) - stamps) / _DAY_S
            weights = 0.5 ** (age_days / half_life_days)
            last = np.array([row.max() for row in timestamps], dtype=np.int64)
        order = np.lexsort((-weights, items, rows))
        rows, items, weights = rows[order], items[order], weights[order]
        first = np.ones(len(items), dtype=np.bool_)
        first[1:] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])
        shape = (len(sequences), n_items)
        return cls(
            sparse.csr_array((weights[first], (rows[first], items[first])), shape=shape), last
        )


def direct_links(taken: Taken, *, ridge: float, max_items: int, per_item: int) -> sparse.csr_array:
    """EASE's weights among the items with interactions.

    The entries of ``X`` are the square roots of the faded weights, so that ``XᵀX`` has
    the weights themselves on its diagonal.

    Args:
        taken: the training.
        ridge: λ in units of the mean of that diagonal, so that one value fits shops
            with many interactions per item and with few.
        max_items: the most frequent items that take part: the matrix that is inverted
            has this many rows.
        per_item: entries of a row that are kept, by absolute value.

    Returns:
        ``(N, N)`` float32.
    """
    matrix = taken.weights.sqrt().tocsc()
    frequency = np.asarray(taken.weights.sum(axis=0)).ravel()
    among = np.sort(np.argsort(-frequency, kind="stable")[:max_items])
    among = among[frequency[among] > 0]
    size = len(frequency)
    if len(among) == 0:
        return sparse.csr_array((size, size), dtype=np.float32)
    part = matrix[:, among]
    gram = (part.T @ part).toarray().astype(np.float64)
    dense = ease_weights(gram, ridge * float(np.diag(gram).mean()))
    local = sparse.coo_array(dense)
    links = sparse.csr_array(
        (local.data, (among[local.row], among[local.col])), shape=(size, size), dtype=np.float32
    )
    return _strongest(links, per_item)


def _strongest(matrix: sparse.csr_array, count: int) -> sparse.csr_array:
    """The ``count`` entries of each row with the largest absolute values."""
    matrix.sum_duplicates()
    data, indices, pointers = [], [], [0]
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        values = matrix.data[start:end]
        columns = matrix.indices[start:end]
        if len(values) > count:
            kept = np.sort(np.argpartition(-np.abs(values), count)[:count])
            values, columns = values[kept], columns[kept]
        data.append(values)
        indices.append(columns)
        pointers.append(pointers[-1] + len(values))
    flat = (
        np.concatenate([np.empty(0, dtype=np.float32), *data]).astype(np.float32),
        np.concatenate([np.empty(0, dtype=np.int64), *indices]),
        np.array(pointers),
    )
    return sparse.csr_array(flat, shape=matrix.shape)
