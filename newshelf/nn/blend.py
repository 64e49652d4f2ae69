"""The signals added to the Siamese scorer's score, and their weights.

For a history ``h`` and an item ``c``, on the scale of log-odds::

    score(h, c) = w_siamese · siamese(h, c) + w_content · log Σ_{i∈h} exp((cos(i,c) - 1) / τ)
                  + Σ_links w_link · log(ε + max(0, Σ_{i∈h} L_ic))  + prior_c

    direct    L = B
    similar   L = B Kᵀ       the candidate stands for its neighbours
    likewise  L = K B Kᵀ     the history's items do too

``B`` are sparse item-to-item weights from what was taken together (``newshelf.training.
signals`` makes them), ``K`` each item's shares in its nearest neighbours by content. A new
item has no column in ``B``; through ``similar`` and ``likewise`` it is linked as its
neighbours are, and its ``direct`` is its ``similar``: what is unknown is taken to behave
like what it resembles. ``prior`` gathers all that does not depend on the history. The form
is a conditional logit (McFadden, 1974): the weights are those under which the items that
were taken are the likeliest of the shelf.

Everything is held in NumPy: it is looked up, not trained by gradient on a device.

Bounds of the content signal from a few directions, to compute it in full for fewer items.

Rotate the embeddings onto the directions in which they differ most, and split each into a
head of ``R`` numbers and a tail. For unit vectors (Cauchy-Schwarz)::

    |cos(i, c) - head_i · head_c| ≤ ‖tail_i‖ ‖tail_c‖

and a log-sum-exp moves by no more than the largest of its terms does, so the content signal of
the heads is right within ``max_i ‖tail_i‖ ‖tail_c‖ / τ``. An item whose upper bound is below
the k-th largest lower bound is not among the first k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

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

BLEND_FILE = "blend.safetensors"
LINKS = ("direct", "similar", "likewise")
NEAREST = 20
_NEAREST_TEMPERATURE = 0.05


@dataclass(frozen=True, eq=False)
class Linked:
    """The summed links of a batch of histories, before they reach the neighbours."""

    direct: FloatArray
    """``(B, N)``: history times B."""
    likewise: FloatArray
    """``(B, N)``: the history's neighbours times B."""


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

    def history(self, rows: Sequence[IntArray]) -> sparse.csr_array:
        """``(B, N)`` float32: 1 for each distinct item of a history."""
        columns = [np.unique(row) for row in rows]
        pointers = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
        flat = np.concatenate([np.empty(0, dtype=np.int64), *columns])
        ones = np.ones(len(flat), dtype=np.float32)
        return sparse.csr_array((ones, flat, pointers), shape=(len(rows), len(self)))

    def linked(self, history: sparse.csr_array) -> Linked:
        """Follow the links.

        Args:
            history: ``(B, N)``, as :meth:`history` gives it; an unseen product stands for
                its nearest items, each with its share.
        """
        alike = history @ self.neighbours
        return Linked((history @ self.links).toarray(), (alike @ self.links).toarray())

    def links_signals(self, linked: Linked) -> dict[str, FloatArray]:
        """``log(ε + max(0, sum))`` by link, ``(B, N)`` float32 each."""
        signals = self.unseen_signals(linked, self.neighbours)
        known = ~self.unlinked
        signals["direct"][:, known] = self._signal(linked.direct[:, known])
        return signals

    def unseen_signals(self, linked: Linked, shares: sparse.csr_array) -> dict[str, FloatArray]:
        """The same for items that are known by their neighbours alone, ``(B, M)`` each.

        Args:
            linked: of the histories.
            shares: ``(M, N)``: their shares in the items of the index.
        """
        similar = self._signal((shares @ linked.direct.T).T)
        likewise = self._signal((shares @ linked.likewise.T).T)
        return {"direct": similar.copy(), "similar": similar, "likewise": likewise}

    def unpersonal(self, signals: Mapping[str, FloatArray], prior: FloatArray) -> FloatArray:
        """All but the parts that are computed from vectors, ``(B, M)`` float32.

        Args:
            signals: by link, ``(B, M)``.
            prior: ``(M,)``.
        """
        total = np.tile(prior, (len(signals["direct"]), 1))
        for name, values in signals.items():
            total += np.float32(self.spec.weights[name]) * values
        return total

    def _signal(self, sums: FloatArray) -> FloatArray:
        signal: FloatArray = np.log(np.float32(self.spec.floor) + np.maximum(sums, 0))
        return signal

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tensors to store, by name: the prior, and both matrices as compressed rows."""
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
    def load(cls, folder: Path, spec: BlendSpec) -> "Blend":
        """Read it back.

        Raises:
            WeightsError: the file is missing, damaged, or not of this spec.
        """
        path = folder / BLEND_FILE
        try:
            arrays = load_file(path)
            size = len(arrays["prior"])
            links, neighbours = (_matrix(arrays, name, size) for name in ("links", "neighbours"))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WeightsError(f"{path} cannot be loaded: {error}") from error
        return cls(spec, links, neighbours, arrays["prior"])


def content_signal(cosines: FloatArray, temperature: float) -> FloatArray:
    """``log Σ_i exp((cos(i, c) - 1) / τ)`` over the history.

    Args:
        cosines: ``(H, C)`` of the history's items to the candidates; H ≥ 1.
        temperature: τ.

    Returns:
        ``(C,)`` float32.
    """
    scaled = cosines * np.float32(1 / temperature)
    # Of the exponents that cosines can give: where float32 holds them all, no column needs
    # its maximum taken off.
    top = np.float32(0)
    if 2 / temperature > SAFE_EXPONENT:
        top = scaled.max(axis=0)
        scaled -= top
    np.exp(scaled, out=scaled)
    summed = np.log(np.ones(len(scaled), dtype=np.float32) @ scaled)
    summed += top - np.float32(1 / temperature)
    return summed.astype(np.float32)


def nearest_shares(
    rows: FloatArray, vectors: FloatArray, *, skip_from: int | None = None
) -> tuple[IntArray, FloatArray]:
    """Each row's nearest items by content, and how much it has of each.

    ::

        K_ij = exp(cos(i, j) / 0.05) / Σ_{n ∈ nearest(i)} exp(cos(i, n) / 0.05)

    Args:
        rows: ``(B, D)`` float32 of unit length.
        vectors: ``(N, D)`` float32 of unit length.
        skip_from: the rows are ``vectors[skip_from : skip_from + B]``, and not their own
            neighbours.

    Returns:
        Item rows and shares, ``(B, m)`` each, m = 20 or as many as there are.
    """
    cosines = rows @ vectors.T
    others = len(vectors)
    if skip_from is not None:
        cosines[np.arange(len(rows)), skip_from + np.arange(len(rows))] = -np.inf
        others -= 1
    count = min(NEAREST, others)
    top = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    best = np.take_along_axis(cosines, top, axis=1)
    shares = np.exp((best - best.max(axis=1, keepdims=True)) / _NEAREST_TEMPERATURE)
    shares /= shares.sum(axis=1, keepdims=True)
    return top, shares.astype(np.float32)


def _matrix(
    arrays: Mapping[str, npt.NDArray[np.generic]], name: str, size: int
) -> sparse.csr_array:
    parts = (arrays[f"{name}.values"], arrays[f"{name}.indices"], arrays[f"{name}.indptr"])
    matrix = sparse.csr_array(parts, shape=(size, size))
    matrix.check_format()
    return matrix


_WIDTH = 64
_SAMPLE = 4096
_MOST_TAIL = 0.1
"""Mean squared length of a tail; with longer ones the bounds tell nothing apart."""
_MOST_NUMBERS = 16_000_000
"""64 MB of heads, which each worker has for itself."""
_ROUNDING = 1e-6


class ContentBound:
    """Heads and lengths of tails of ``N`` embeddings.

    Args:
        embeddings: ``(N, D)`` float32 of unit length.
        width: R, the numbers of a head.
    """

    def __init__(self, embeddings: FloatArray, width: int = _WIDTH) -> None:
        sample = embeddings[:: max(1, len(embeddings) // _SAMPLE)]
        # In increasing order of what they explain.
        _, directions = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
        self._head: FloatArray = embeddings @ directions[:, -width:].astype(np.float32)
        left = 1 - np.einsum("nr,nr->n", self._head, self._head)
        self._tail: FloatArray = np.sqrt(np.maximum(left, 0) + np.float32(_ROUNDING))

    @classmethod
    def of(cls, embeddings: FloatArray) -> Self | None:
        """None where it would save nothing, or take too much memory."""
        width = min(_WIDTH, embeddings.shape[1] // 4)
        if width == 0 or len(embeddings) * width > _MOST_NUMBERS:
            return None
        found = cls(embeddings, width)
        return found if float((found._tail**2).mean()) <= _MOST_TAIL else None

    def content(
        self, history: IntArray, candidates: IntArray, temperature: float
    ) -> tuple[FloatArray, FloatArray]:
        """The signal of the heads and how far it may be off, ``(C,)`` float32 each.

        Args:
            history: rows, at least one.
            candidates: ``(C,)`` rows.
            temperature: τ.
        """
        heads = self._head.take(history, axis=0)
        cosines = self._head.take(candidates, axis=0) @ heads.T
        reach = self._tail.take(history).max() / np.float32(temperature)
        off = self._tail.take(candidates) * reach + np.float32(_ROUNDING / temperature)
        return content_signal(cosines.T, temperature), off
