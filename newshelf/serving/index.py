"""The items that can be recommended, with their vectors, and the search among them.

``index_format`` says what an index's folder holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from newshelf.errors import VersionMismatch, WeightsError
from newshelf.nn.blend import Blend
from newshelf.serving.index_format import (
    ITEMS,
    SEARCH,
    VECTORS,
    IndexManifest,
    read_manifest,
)
from newshelf.serving.index_knowledge import IndexKnowledge
from newshelf.serving.known import KnownValues, TextReader
from newshelf.serving.mapped import map_tensors
from newshelf.serving.search import Search, open_search
from newshelf.serving.table import INDEX_COLUMNS, ItemTable

__all__ = ["IndexManifest", "ItemIndex", "load_index"]

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ItemIndex:
    """A loaded index of ``N`` items."""

    manifest: IndexManifest
    table: ItemTable
    embeddings: FloatArray
    """``(N, 512)``, of unit length."""
    vectors: FloatArray | None
    """``(N, P)``, of unit length; None without a scorer."""
    embedding_search: Search
    """Among ``embeddings``."""
    vector_search: Search | None
    """Among ``vectors``."""
    blend: Blend | None = None
    """The signals beside the scorer; None where it ranks alone."""

    def __len__(self) -> int:
        return len(self.table)


def load_index(directory: Path, *, encoder_version: str, min_confidence: float = 0.6) -> ItemIndex:
    """Load an index and check that it belongs to the encoder.

    Args:
        directory: what ``write_index`` wrote.
        encoder_version: the encoder's.
        min_confidence: what is known with less is left out.

    Raises:
        VersionMismatch: another encoder made it, its files do not belong together, or
            another Newshelf wrote it.
        WeightsError: a file is missing or damaged.
    """
    try:
        manifest = read_manifest(directory)
        if manifest.encoder_version != encoder_version:
            raise VersionMismatch(
                f"the index {directory} was made by encoder {manifest.encoder_version}, but "
                f"this is encoder {encoder_version}: export both from one checkpoint"
            )
        columns = _read_columns(directory / ITEMS)
        tensors = map_tensors(directory / VECTORS)
        kept = map_tensors(directory / SEARCH) if manifest.search else {}
        known = _load_known(directory, manifest, min_confidence)
    except (OSError, ValidationError, ValueError, SafetensorError) as error:
        raise WeightsError(f"the index {directory} cannot be loaded: {error}") from error
    blend = None if manifest.blend is None else Blend.load(directory, manifest.blend)
    _check_shapes(directory, manifest, len(columns["id"]), tensors, blend)
    vectors = tensors.get("vectors")

    def search(name: Literal["embeddings", "vectors"]) -> Search:
        chosen = manifest.search.get(name)
        return open_search(tensors[name], directory, name, chosen, kept)

    return ItemIndex(
        manifest,
        ItemTable.from_columns(columns, known),
        tensors["embeddings"],
        vectors,
        search("embeddings"),
        None if vectors is None else search("vectors"),
        blend,
    )


def _read_columns(path: Path) -> dict[str, Sequence[object]]:
    columns = orjson.loads(path.read_bytes())
    if not isinstance(columns, dict) or set(columns) != set(INDEX_COLUMNS):
        raise ValueError(f"{path.name} does not have the columns {', '.join(INDEX_COLUMNS)}")
    if len({len(values) for values in columns.values()}) != 1:
        raise ValueError(f"the columns of {path.name} differ in length")
    return columns


def _check_shapes(
    directory: Path, manifest: IndexManifest, items: int, tensors: Tensors, blend: Blend | None
) -> None:
    found = (
        items,
        {name: tensor.shape for name, tensor in tensors.items()},
        None if blend is None else len(blend),
    )
    shapes = {"embeddings": (manifest.items, manifest.embedding)}
    if manifest.vector is not None:
        shapes["vectors"] = (manifest.items, manifest.vector)
    wanted = (manifest.items, shapes, None if manifest.blend is None else manifest.items)
    if found != wanted:
        raise VersionMismatch(
            f"the index {directory} holds {found} (items, vectors, signals) where its "
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
