"""The items that can be recommended, with their vectors; exact search.

A directory::

    index.json           format, encoder_version, index_version, items, embedding, vector
    items.parquet        INDEX_COLUMNS, one row per item
    vectors.safetensors  embeddings (N, 512) float32; vectors (N, P) float32 with a scorer
    blend.safetensors    the signals beside the scorer; absent where it ranks alone
    knowledge.parquet    what is known beyond the columns, see ``known``; absent without it
    lexicon.json         the words by which that was found

Both tensors hold rows of unit length, in the order of ``items.parquet``. They are mapped
into memory, so the workers of one machine share them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from newshelf.errors import VersionMismatch, WeightsError
from newshelf.files import directory_aside, read_json, write_json
from newshelf.nn.blend import Blend
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index_knowledge import IndexKnowledge
from newshelf.serving.known import KnownValues, TextReader
from newshelf.serving.table import INDEX_COLUMNS, ItemTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IndexManifest", "ItemIndex", "load_index", "write_index"]

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

_MANIFEST, _ITEMS, _VECTORS = "index.json", "items.parquet", "vectors.safetensors"
_TYPES = {"price": pa.float64(), "created_at": pa.int64(), "popularity": pa.float64()}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in INDEX_COLUMNS])


class IndexManifest(BaseModel):
    """``index.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    encoder_version: str
    """The model version whose encoder made the embeddings."""
    index_version: str
    """12 hex digits of the SHA-256 of items, vectors, signals and knowledge."""
    items: int
    embedding: int
    """Width of an embedding."""
    vector: int | None
    """Width of a projected vector; None without a scorer."""
    blend: BlendSpec | None = None
    """Weights of the signals beside the scorer."""
    knowledge: int | None = None
    """Rows of ``knowledge.parquet``; None in an index that was made without any, as all
    were before there was knowledge. Such an index knows what its columns state."""


@dataclass(frozen=True)
class ItemIndex:
    """A loaded index of ``N`` items."""

    manifest: IndexManifest
    table: ItemTable
    embeddings: FloatArray
    """``(N, 512)``, of unit length."""
    vectors: FloatArray | None
    """``(N, P)``, of unit length; None without a scorer."""
    blend: Blend | None = None
    """The signals beside the scorer; None where it ranks alone."""

    def __len__(self) -> int:
        return len(self.table)


def search(matrix: FloatArray, query: FloatArray, allowed: Mask, limit: int) -> NDArray[np.int64]:
    """The allowed rows most similar to a query, by inner product; exact.

    Args:
        matrix: ``(N, D)`` float32.
        query: ``(D,)`` float32.
        allowed: ``(N,)`` bool.
        limit: at most so many.

    Returns:
        Row numbers in increasing order; all allowed rows when there are no more than
        ``limit``.
    """
    rows = np.flatnonzero(allowed)
    if len(rows) <= limit:
        return rows
    # A product with the whole matrix beats a gather of half its rows.
    similarity = (matrix @ query)[rows] if len(rows) * 2 > len(matrix) else matrix[rows] @ query
    return rows[top_rows(similarity, np.ones_like(rows, dtype=np.bool_), limit)]


def top_rows(scores: FloatArray, allowed: Mask, limit: int) -> NDArray[np.int64]:
    """The allowed rows with the highest scores, at most ``limit``, in increasing order.

    Args:
        scores: ``(N,)`` float32.
        allowed: ``(N,)`` bool.
        limit: at most so many.
    """
    rows = np.flatnonzero(allowed)
    if len(rows) <= limit:
        return rows
    return np.sort(rows[np.argpartition(-scores[rows], limit)[:limit]])


def write_index(
    directory: Path,
    *,
    encoder_version: str,
    items: "pd.DataFrame",
    embeddings: FloatArray,
    vectors: FloatArray | None,
    blend: Blend | None = None,
    knowledge: IndexKnowledge | None = None,
) -> IndexManifest:
    """Write an index, aside and renamed. Called by ``export``.

    Args:
        directory: replaced as a whole.
        encoder_version: the checkpoint's version.
        items: a pandas frame with ``INDEX_COLUMNS`` (others are left out); ids unique.
        embeddings: ``(N, 512)`` float32 of unit length, in the frame's order.
        vectors: the projected embeddings, ``(N, P)`` float32; None without a scorer.
        blend: the signals beside the scorer, of the same items.
        knowledge: what is known of the items beyond the columns.

    Raises:
        ValueError: ids repeat, or the rows do not match.
    """
    table = pa.Table.from_pandas(
        items.loc[:, list(INDEX_COLUMNS)], schema=_SCHEMA, preserve_index=False
    )
    tensors = {"embeddings": np.ascontiguousarray(embeddings, dtype=np.float32)}
    if vectors is not None:
        tensors["vectors"] = np.ascontiguousarray(vectors, dtype=np.float32)
    if items["id"].duplicated().any():
        raise ValueError("the items' ids are not unique")
    for name, tensor in tensors.items():
        if len(tensor) != len(items):
            raise ValueError(f"{len(tensor)} {name} for {len(items)} items")
    if blend is not None and len(blend) != len(items):
        raise ValueError(f"signals of {len(blend)} items for {len(items)} items")
    if knowledge is not None:
        knowledge.check(len(items))
    with directory_aside(directory) as folder:
        pq.write_table(table, folder / _ITEMS)
        save_file(tensors, folder / _VECTORS)
        if blend is not None:
            blend.save(folder)
        if knowledge is not None:
            knowledge.write(folder)
        manifest = IndexManifest(
            encoder_version=encoder_version,
            index_version=_version(table, tensors, blend, knowledge),
            items=len(items),
            embedding=embeddings.shape[1],
            vector=None if vectors is None else vectors.shape[1],
            blend=None if blend is None else blend.spec,
            knowledge=None if knowledge is None else len(knowledge),
        )
        write_json(folder / _MANIFEST, manifest.model_dump())
    return manifest


def load_index(directory: Path, *, encoder_version: str, min_confidence: float = 0.6) -> ItemIndex:
    """Load an index and check that it belongs to the encoder.

    Args:
        directory: what ``write_index`` wrote.
        encoder_version: the encoder's.
        min_confidence: what is known with less is left out.

    Raises:
        VersionMismatch: another encoder made it, or its files do not belong together.
        WeightsError: a file is missing or damaged.
    """
    try:
        manifest = IndexManifest.model_validate(read_json(directory / _MANIFEST))
        if manifest.encoder_version != encoder_version:
            raise VersionMismatch(
                f"the index {directory} was made by encoder {manifest.encoder_version}, but "
                f"this is encoder {encoder_version}: export both from one checkpoint"
            )
        columns = pq.read_table(directory / _ITEMS, columns=list(INDEX_COLUMNS)).to_pydict()
        # Through torch, safetensors maps the file; through numpy, it would copy it.
        with safe_open(directory / _VECTORS, framework="pt") as file:
            tensors = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        known = _load_known(directory, manifest, min_confidence)
    except (OSError, ValidationError, ValueError, pa.ArrowException, SafetensorError) as error:
        raise WeightsError(f"the index {directory} cannot be loaded: {error}") from error
    index = ItemIndex(
        manifest,
        ItemTable.from_columns(columns, known),
        tensors["embeddings"],
        tensors.get("vectors"),
        None if manifest.blend is None else Blend.load(directory, manifest.blend),
    )
    _check_shapes(index, directory)
    return index


def _check_shapes(index: ItemIndex, directory: Path) -> None:
    manifest = index.manifest
    found = (
        len(index.table),
        index.embeddings.shape,
        None if index.vectors is None else index.vectors.shape,
        None if index.blend is None else len(index.blend),
    )
    wanted = (
        manifest.items,
        (manifest.items, manifest.embedding),
        None if manifest.vector is None else (manifest.items, manifest.vector),
        None if manifest.blend is None else manifest.items,
    )
    if found != wanted:
        raise VersionMismatch(
            f"the index {directory} holds {found} (items, embeddings, vectors, signals) where its "
            f"manifest says {wanted}: export it again"
        )


def _load_known(directory: Path, manifest: IndexManifest, least: float) -> KnownValues | None:
    if manifest.knowledge is None:
        return None
    knowledge = IndexKnowledge.load(directory)
    if len(knowledge) != manifest.knowledge:
        raise VersionMismatch(
            f"the index {directory} holds {len(knowledge)} statements where its manifest says "
            f"{manifest.knowledge}: export it again"
        )
    knowledge.check(manifest.items)
    return KnownValues.from_rows(knowledge.rows, TextReader(knowledge.lexicon, least))


def _version(
    table: pa.Table,
    tensors: dict[str, FloatArray],
    blend: Blend | None,
    knowledge: IndexKnowledge | None,
) -> str:
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(repr(table.column(name).to_pylist()).encode())
    for tensor in tensors.values():
        digest.update(tensor.tobytes())
    if blend is not None:
        digest.update(blend.spec.model_dump_json().encode())
        for array in blend.arrays().values():
            digest.update(array.tobytes())
    if knowledge is not None:
        digest.update(repr(knowledge).encode())
    return digest.hexdigest()[:12]
