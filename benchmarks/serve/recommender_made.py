"""A catalogue of any size, made up from an exported one."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse

from newshelf.errors import SetupError
from newshelf.nn.blend import Blend
from newshelf.serving.known import KnownValues
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.serving.search import Search, open_search
from newshelf.serving.search.base import FloatArray
from newshelf.serving.search.build import build_search

__all__ = ["larger"]

_LINKED_ITEMS = 8_000
"""As ``scorer.blend.linked_items``: further items have no links of their own."""
_NOISE = 0.2
"""Length of what is added to an embedding."""


def larger(predictor: RecommenderPredictor, items: int, seed: int = 7) -> RecommenderPredictor:
    """The same recommender over a made-up catalogue: its items again and again, with noise."""
    index, rng = predictor.index, np.random.default_rng(seed)
    original = np.arange(items) % len(index)
    embeddings = index.embeddings[original]
    noise = rng.standard_normal(embeddings.shape, dtype=np.float32)
    embeddings += noise * np.float32(_NOISE / np.sqrt(embeddings.shape[1]))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    if predictor.scorer is None:
        raise SetupError("this workspace's model has no scorer, so there is nothing to measure")
    vectors = predictor.scorer.projector.run({"embedding": embeddings})["vector"]
    columns = {
        name: [getattr(index.table, name)[row] for row in original]
        for name in ("title", "product_type", "brand", "color", "material", "availability")
    }
    table = replace(
        index.table,
        id=[f"item{row}" for row in range(items)],
        price=index.table.price[original],
        created_at=index.table.created_at[original],
        popularity=index.table.popularity[original],
        known=KnownValues(),
        **columns,
    )
    made = replace(
        index,
        manifest=index.manifest.model_copy(update={"items": items}),
        table=table,
        embeddings=embeddings,
        vectors=vectors,
        embedding_search=_searched(embeddings),
        vector_search=_searched(vectors),
        blend=None if index.blend is None else _repeated(index.blend, items, rng),
    )
    return predictor.over(made)


def _searched(matrix: FloatArray) -> Search:
    """As an index of so many items has it."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, kept = build_search(matrix, Path(folder), "rows")
        # What is mapped stays when its folder is gone.
        return open_search(matrix, Path(folder), "rows", manifest, kept)


def _repeated(blend: Blend, items: int, rng: np.random.Generator) -> Blend:
    """Links within each repetition of the first ones, likeness across all."""

    def copied(matrix: sparse.csr_array, rows: int, across: bool) -> sparse.csr_array:
        repeated = sparse.vstack([matrix] * -(-rows // len(blend)), format="coo")
        copies = repeated.row // len(blend)
        if across:
            copies = rng.integers(0, max(1, items // len(blend)), repeated.nnz)
        columns = repeated.col + copies * len(blend)
        kept = (repeated.row < rows) & (columns < items)
        parts = (repeated.data[kept], (repeated.row[kept], columns[kept]))
        return sparse.csr_array(parts, shape=(items, items))

    links = copied(blend.links, min(items, _LINKED_ITEMS), across=False)
    neighbours = copied(blend.neighbours, items, across=True)
    return Blend(blend.spec, links, neighbours, np.resize(blend.prior, items))
