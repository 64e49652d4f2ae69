"""Which items are alike: the bridge from what is known to what is new."""

import numpy as np
from scipy import sparse
from torch import Tensor

from newshelf.nn.blend import nearest_shares

__all__ = ["content_neighbours"]

_BLOCK = 2048


def content_neighbours(embeddings: Tensor) -> sparse.csr_array:
    """Each item's nearest items by content, itself left out; see ``nearest_shares``.

    Args:
        embeddings: ``(N, D)`` float32 of unit length.

    Returns:
        ``(N, N)`` float32; each row sums to 1, or is empty where there is one item alone.
    """
    vectors = embeddings.numpy()
    size = len(vectors)
    if size < 2:  # noqa: PLR2004
        return sparse.csr_array((size, size), dtype=np.float32)
    found = [
        nearest_shares(vectors[start : start + _BLOCK], vectors, skip_from=start)
        for start in range(0, size, _BLOCK)
    ]
    columns = np.concatenate([part for part, _ in found])
    shares = np.concatenate([part for _, part in found])
    pointers = np.arange(0, columns.size + 1, columns.shape[1])
    return sparse.csr_array((shares.ravel(), columns.ravel(), pointers), shape=(size, size))
