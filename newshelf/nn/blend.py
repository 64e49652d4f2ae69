"""Signals added to the Siamese scorer's score, their weights, and bounds of the content signal.

For a history ``h`` and an item ``c``, on the scale of log-odds::

    score(h, c) = w_siamese · siamese(h, c) + w_content · log Σ_{i∈h} exp((cos(i,c) - 1) / τ)
                  + Σ_links w_link · log(ε + max(0, Σ_{i∈h} L_ic))  + prior_c

    direct    L = B
    similar   L = B Kᵀ       the candidate is represented by its neighbours
    likewise  L = K B Kᵀ     so are the history's items

``B`` are sparse item-to-item co-occurrence weights (``newshelf.training.signals``), ``K`` each
item's shares in its nearest neighbours by content. A new item has no column in ``B``; ``similar``
and ``likewise`` link it as its neighbours are linked, and its ``direct`` is its ``similar``.
``newshelf.nn.blend_lookup`` computes the links' terms.
``prior`` is the sum of all terms that do not depend on the history. The form is a conditional
logit (McFadden, 1974): the weights maximise the likelihood of the observed interactions. All
arrays are NumPy's, since they are looked up and not trained on a device.

``ContentBound`` bounds the content signal to compute it in full for fewer items. It rotates the
embeddings onto the directions of largest variance, and splits each into a head of ``R`` numbers
and a tail. For unit vectors (Cauchy-Schwarz)::

    |cos(i, c) - head_i · head_c| ≤ ‖tail_i‖ ‖tail_c‖

A log-sum-exp changes by at most the largest change of its terms, so the content signal of the
heads is exact within ``max_i ‖tail_i‖ ‖tail_c‖ / τ``. An item whose upper bound is below the k-th
largest lower bound is not among the first k.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse

from newshelf.errors import WeightsError
from newshelf.nn.numpy_scorer import SAFE_EXPONENT
from newshelf.nn.spec import BlendSpec

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]

BLEND_FILE = "blend.safetensors"
LINKS = ("direct", "similar", "likewise")
NEAREST = 20
_NEAREST_TEMPERATURE = 0.05
_BLOCK = 2048
"""Rows of cosines in memory at once."""
_HEAD_WIDTH = 64
_SAMPLE = 4096
_MAX_TAIL = 0.1
"""Maximum mean squared length of a tail; with longer ones the bounds are useless."""
_MAX_NUMBERS = 16_000_000
"""64 MB of heads per worker."""
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Blend:
    """Links and prior of ``N`` items, in the catalogue's order."""

    spec: BlendSpec
    links: sparse.csr_array
    """B, ``(N, N)`` float32: row = history item, column = candidate."""
    neighbours: sparse.csr_array
    """K, ``(N, N)`` float32; each row sums to 1."""
    prior: FloatArray
    """``(N,)``."""

    def __len__(self) -> int:
        return len(self.prior)

    @cached_property
    def unlinked(self) -> npt.NDArray[np.bool_]:
        """``(N,)``: items without a column in B."""
        without = np.ones(len(self), dtype=np.bool_)
        without[self.links.indices] = False
        return without

    def followed(self, rows: IntArray, weights: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the items that weighted items, or their neighbours, link to, and the sums."""
        given = sparse.csr_array(
            (weights, (np.zeros(len(rows), dtype=np.int64), rows)), shape=(1, len(self))
        )
        bare = self.links.indptr[given.indices] == self.links.indptr[given.indices + 1]
        alone = given.copy()
        alone.data = np.where(bare, given.data, 0).astype(np.float32)
        summed = ((given + alone @ self.neighbours) @ self.links).tocoo()
        linked = summed.data > 0
        return summed.coords[1][linked].astype(np.int64), summed.data[linked]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tensors to store by name: the prior, and both matrices as compressed rows."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"prior": self.prior}
        for name, matrix in (("links", self.links), ("neighbours", self.neighbours)):
            arrays[f"{name}.indptr"] = matrix.indptr.astype(np.int64)
            arrays[f"{name}.indices"] = matrix.indices.astype(np.int32)
            arrays[f"{name}.values"] = matrix.data.astype(np.float32)
        return arrays

    def save(self, folder: Path) -> None:
        """Write ``blend.safetensors``."""
        save_file(self.arrays(), folder / BLEND_FILE)

    @classmethod
    def load(
        cls, folder: Path, spec: BlendSpec, read: Callable[[Path], Arrays] = load_file
    ) -> "Blend":
        """Read ``blend.safetensors``; ``read`` reads or maps its arrays."""
        path = folder / BLEND_FILE
        try:
            arrays = read(path)
            size = len(arrays["prior"])
            links, neighbours = (_matrix(arrays, name, size) for name in ("links", "neighbours"))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WeightsError(f"{path} cannot be loaded: {error}") from error
        return cls(spec, links, neighbours, arrays["prior"])


def content_signal(cosines: FloatArray, temperature: float) -> FloatArray:
    """Return ``(C,)`` float32 ``log Σ_i exp((cos(i, c) - 1) / τ)`` from ``(H, C)`` cosines."""
    scaled = cosines * np.float32(1 / temperature)
    # If float32 holds the exponents of all cosines, no maximum is subtracted.
    top = np.float32(0)
    if 2 / temperature > SAFE_EXPONENT:
        top = scaled.max(axis=0)
        scaled -= top
    np.exp(scaled, out=scaled)
    summed = np.log(np.ones(len(scaled), dtype=np.float32) @ scaled)
    summed += top - np.float32(1 / temperature)
    return summed.astype(np.float32)


def nearest_shares(
    rows: FloatArray,
    vectors: FloatArray,
    *,
    skip_from: int | None = None,
    most: int = NEAREST,
    temperature: float = _NEAREST_TEMPERATURE,
) -> tuple[IntArray, FloatArray]:
    """Return each row's nearest items by content and its shares, ``(B, m)`` each, m ≤ ``most``.

    ::

        K_ij = exp(cos(i, j) / t) / Σ_{n ∈ nearest(i)} exp(cos(i, n) / t)

    Rows and vectors are ``(B, D)`` and ``(N, D)`` float32 of unit length. With ``skip_from`` the
    rows are ``vectors[skip_from : skip_from + B]``, and not their own neighbours.
    """
    cosines = rows @ vectors.T
    others = len(vectors)
    if skip_from is not None:
        cosines[np.arange(len(rows)), skip_from + np.arange(len(rows))] = -np.inf
        others -= 1
    count = min(most, others)
    top = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    best = np.take_along_axis(cosines, top, axis=1)
    shares = np.exp((best - best.max(axis=1, keepdims=True)) / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    return top, shares.astype(np.float32)


def content_neighbours(
    vectors: FloatArray, most: int = NEAREST, temperature: float = _NEAREST_TEMPERATURE
) -> sparse.csr_array:
    """Return ``(N, N)`` float32: each item's nearest others by content; see ``nearest_shares``.

    Each row sums to 1, or is empty if there is only one item. ``vectors`` are of unit length.
    """
    size = len(vectors)
    if size < 2:  # noqa: PLR2004
        return sparse.csr_array((size, size), dtype=np.float32)
    found = []
    for start in range(0, size, _BLOCK):
        rows = vectors[start : start + _BLOCK]
        found.append(
            nearest_shares(rows, vectors, skip_from=start, most=most, temperature=temperature)
        )
    columns = np.concatenate([part for part, _ in found])
    shares = np.concatenate([part for _, part in found])
    pointers = np.arange(0, columns.size + 1, columns.shape[1])
    return sparse.csr_array((shares.ravel(), columns.ravel(), pointers), shape=(size, size))


def popularity_growth(
    recent: npt.NDArray[np.float64],
    earlier: npt.NDArray[np.float64],
    *,
    earlier_total: float,
    items: int,
) -> npt.NDArray[np.float64]:
    """Return how far recent interactions exceed the expected ones, in standard deviations.

    ::

        expected = Σ recent · (earlier + 1) / (Σ earlier + items)
        growth = (recent - expected) / √(expected + 1)

    ``recent`` and ``earlier`` are ``(R,)``, of all items that have recent ones.
    """
    expected = recent.sum() * (earlier + 1) / (earlier_total + items)
    growth: npt.NDArray[np.float64] = (recent - expected) / np.sqrt(expected + 1)
    return growth


def _matrix(arrays: Arrays, name: str, size: int) -> sparse.csr_array:
    indices = arrays[f"{name}.indices"]
    # Of one type, or else scipy copies the indices.
    pointers = arrays[f"{name}.indptr"].astype(indices.dtype)
    parts = (arrays[f"{name}.values"], indices, pointers)
    matrix = sparse.csr_array(parts, shape=(size, size))
    matrix.check_format()
    return matrix


class ContentBound:
    """Heads of ``width`` numbers and tail lengths of ``(N, D)`` float32 unit vectors."""

    def __init__(self, embeddings: FloatArray, width: int = _HEAD_WIDTH) -> None:
        sample = embeddings[:: max(1, len(embeddings) // _SAMPLE)]
        # In increasing order of explained variance.
        _, directions = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
        self._head: FloatArray = embeddings @ directions[:, -width:].astype(np.float32)
        left = 1 - np.einsum("nr,nr->n", self._head, self._head)
        self._tail: FloatArray = np.sqrt(np.maximum(left, 0) + np.float32(_ROUNDING))

    @classmethod
    def of(cls, embeddings: FloatArray) -> Self | None:
        """Return None if it would save nothing or take too much memory."""
        width = min(_HEAD_WIDTH, embeddings.shape[1] // 4)
        if width == 0 or len(embeddings) * width > _MAX_NUMBERS:
            return None
        found = cls(embeddings, width)
        return found if float((found._tail**2).mean()) <= _MAX_TAIL else None

    def content(
        self, history: IntArray, candidates: IntArray, temperature: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the signal of the heads and its maximum error, ``(C,)`` float32 each."""
        heads = self._head.take(history, axis=0)
        cosines = self._head.take(candidates, axis=0) @ heads.T
        reach = self._tail.take(history).max() / np.float32(temperature)
        off = self._tail.take(candidates) * reach + np.float32(_ROUNDING / temperature)
        return content_signal(cosines.T, temperature), off
