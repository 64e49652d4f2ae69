"""A drawn catalogue of any size, with everything that an index holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from newshelf.attributes.lexicon import packaged_lexicon
from newshelf.files import directory_aside
from newshelf.nn.blend import LINKS, Blend, nearest_shares
from newshelf.nn.numpy_scorer import Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import IndexKnowledge
from newshelf.serving.index_write import write_index

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

VERSION = "0" * 12
MAX_HISTORY = 50
"""Items that the scorer reads."""
_SEED = 30
_EMBEDDING, _VECTOR = 512, 128
_DEPARTMENTS, _KIND_ITEMS = 40, 500
"""Departments have kinds, whose products look alike; the average number of these."""
_LINKED, _PER_ITEM = 8_000, 200
"""As ``scorer.blend.linked_items`` and ``links_per_item``."""
_VARIETY = 24
"""Directions in which the products of a kind differ."""
_WEIGHTS = dict(zip(LINKS, (0.4, 0.2, 0.3), strict=True))
_POOLING = Pooling(sharpness=4.0, weight=0.5, scale=14.0)


@dataclass(frozen=True)
class Drawn:
    """Numbers of ``N`` products."""

    kind: IntArray
    """``(N,)``, increasing; those of a department follow each other."""
    department: IntArray
    """``(N,)``."""
    popularity: NDArray[np.float64]
    """``(N,)``: interactions, of which few products have most."""
    linked: IntArray
    """The most popular rows."""


def draw(items: int) -> Drawn:
    """Draw kinds of different sizes, and popularity."""
    rng = np.random.default_rng(_SEED)
    kinds = max(1, items // _DEPARTMENTS // _KIND_ITEMS)
    shares = rng.lognormal(sigma=0.5, size=_DEPARTMENTS * kinds)
    kind = np.sort(rng.choice(len(shares), items, p=shares / shares.sum()))
    popularity = np.floor(rng.pareto(1.1, items) * 2)
    linked = np.sort(np.argsort(-popularity, kind="stable")[:_LINKED])
    return Drawn(kind, kind // kinds, popularity, linked)


def write_catalogue(directory: Path, items: int) -> None:
    """Write an index of drawn products, unless it exists; it takes 3.5 GB for a million."""
    if directory.exists():
        return
    drawn = draw(items)
    with directory_aside(directory) as folder:
        embeddings, vectors = _vectors(drawn, folder)
        write_index(
            folder / "index",
            encoder_version=VERSION,
            items=_frame(drawn),
            embeddings=embeddings,
            vectors=vectors,
            blend=_blend(drawn, embeddings),
            knowledge=_knowledge(drawn),
            pooling=_POOLING,
        )
        (folder / "embeddings.f32").unlink()


def histories(drawn: Drawn, count: int, seed: int) -> Iterator[IntArray]:
    """Draw shoppers' histories: 3 to 30 products of two departments, mostly popular ones."""
    rng = np.random.default_rng(seed)
    everything = np.arange(len(drawn.kind))
    for _ in range(count):
        some = rng.choice(_DEPARTMENTS, 2, replace=False)
        popular = drawn.linked[np.isin(drawn.department[drawn.linked], some)]
        other = everything[np.isin(drawn.department, some)]
        length = rng.integers(3, 31)
        rows = [*rng.choice(popular, length), *rng.choice(other, 1 + length // 4)]
        yield np.unique(rng.permutation(rows)[:length])


def _vectors(drawn: Drawn, folder: Path) -> tuple[FloatArray, FloatArray]:
    """Draw embeddings around the centre of their kind, and project them."""
    rng, kind = np.random.default_rng(_SEED), drawn.kind

    def normal(*shape: int) -> FloatArray:
        return rng.standard_normal(shape, dtype=np.float32)

    departments, kinds = normal(_DEPARTMENTS, _EMBEDDING), normal(int(kind[-1]) + 1, _EMBEDDING)
    variety = normal(_VARIETY, _EMBEDDING) * np.float32(_VARIETY**-0.5)
    projection = np.linalg.qr(normal(_EMBEDDING, _VECTOR))[0].astype(np.float32)
    shape = (len(kind), _EMBEDDING)
    embeddings = np.memmap(folder / "embeddings.f32", np.float32, "w+", shape=shape)
    vectors = np.empty((len(kind), _VECTOR), dtype=np.float32)
    for start in range(0, len(kind), 50_000):
        rows = slice(start, min(start + 50_000, len(kind)))
        count = rows.stop - start
        made = departments[drawn.department[rows]] + kinds[kind[rows]]
        made += normal(count, _VARIETY) @ variety + 0.3 * normal(count, _EMBEDDING)
        embeddings[rows] = _unit(made)
        vectors[rows] = _unit(embeddings[rows] @ projection)
    return embeddings, vectors


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _frame(drawn: Drawn) -> pd.DataFrame:
    rng = np.random.default_rng(_SEED)
    count = len(drawn.kind)
    colors = np.array(["red", "navy", "White, oak", "black", "green/white", None])
    materials = np.array(["oak", "steel", "linen", "Gold", None])
    stock = np.array(["in_stock", "out_of_stock", None])
    brands = np.minimum(rng.zipf(1.3, count), 20_000)
    return pd.DataFrame(
        {
            "id": [f"NS{row:07}" for row in range(count)],
            "title": [f"Drawn product {row} of kind {kind}" for row, kind in enumerate(drawn.kind)],
            "product_type": [
                f"Shop > D{department} > K{kind}"
                for department, kind in zip(drawn.department, drawn.kind, strict=True)
            ],
            "brand": [f"Brand {brand}" for brand in brands],
            "color": colors[rng.integers(len(colors), size=count)],
            "material": materials[rng.integers(len(materials), size=count)],
            "size": None,
            "price": rng.lognormal(3, 1, count).round(2),
            "availability": stock[rng.choice(3, count, p=[0.9, 0.05, 0.05])],
            "created_at": 1_700_000_000 + rng.integers(0, 10**7, count),
            "popularity": drawn.popularity,
        }
    )


def _knowledge(drawn: Drawn) -> IndexKnowledge:
    rng = np.random.default_rng(_SEED)
    styles = np.array(["minimal", "boho", "classic", "rustic"])[drawn.kind % 4].tolist()
    sure = rng.choice([0.5, 0.7, 0.9], len(styles)).tolist()
    rows = [(row, "style", *fact) for row, fact in enumerate(zip(styles, sure, strict=True))]
    return IndexKnowledge(rows, packaged_lexicon())


def _blend(drawn: Drawn, embeddings: FloatArray) -> Blend:
    rng = np.random.default_rng(_SEED)
    count = len(drawn.kind)
    parts = []
    bounds = np.flatnonzero(np.diff(drawn.kind, prepend=-1, append=-1))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        block = np.asarray(embeddings[start:end])
        rows, shares = nearest_shares(block, block, skip_from=0)
        parts.append((start + rows, shares))
    width = max(rows.shape[1] for rows, _ in parts)
    neighbours = _regular([_filled(*part, width) for part in parts], count)
    spec = BlendSpec(weights={"siamese": 0.85, "content": 0.3, **_WEIGHTS})
    prior = (0.6 * np.log1p(drawn.popularity) - 2).astype(np.float32)
    return Blend(spec, _links(drawn, rng), neighbours, prior)


def _filled(rows: IntArray, shares: FloatArray, width: int) -> tuple[IntArray, FloatArray]:
    missing = ((0, 0), (0, width - rows.shape[1]))
    return np.pad(rows, missing), np.pad(shares, missing)


def _regular(parts: list[tuple[IntArray, FloatArray]], count: int) -> sparse.csr_array:
    rows = np.concatenate([rows for rows, _ in parts]).astype(np.int32)
    shares = np.concatenate([shares for _, shares in parts])
    starts = np.arange(count + 1, dtype=np.int32) * rows.shape[1]
    return sparse.csr_array((shares.ravel(), rows.ravel(), starts), shape=(count, count))


def _links(drawn: Drawn, rng: np.random.Generator) -> sparse.csr_array:
    """Link popular products: half of the links to the same department, some of them negative."""
    linked, department = drawn.linked, drawn.department[drawn.linked]
    order = np.argsort(department, kind="stable")
    starts = np.searchsorted(department[order], np.arange(_DEPARTMENTS + 1))
    sizes = np.diff(starts)[department][:, None]
    near = (rng.random((len(linked), _PER_ITEM // 2)) * sizes).astype(np.int64)
    near = order[starts[department][:, None] + near]
    far = rng.integers(len(linked), size=near.shape)
    columns = linked[np.concatenate([near, far], axis=1)]
    values = rng.lognormal(-4, 1, columns.shape) * rng.choice([1, 1, 1, -1], columns.shape)
    rows = np.repeat(linked, columns.shape[1])
    count = len(drawn.kind)
    links = sparse.coo_array(
        (values.ravel().astype(np.float32), (rows, columns.ravel())), shape=(count, count)
    ).tocsr()
    links.sum_duplicates()
    return sparse.csr_array(links)
