"""The index: the items that can be recommended, with their vectors and the search over them.

Files of an index's folder::

    index.json           format, encoder_version, index_version, items, embedding, vector, …
    items.safetensors    columns, ids and posting lists (``ItemTable.arrays``)
    vectors.safetensors  embeddings (N, 512) float32; vectors (N, P) float32 with a scorer
    embeddings.faiss     the same as int8, for search; absent if the float32 rows are few enough
    vectors.faiss        to be searched directly
    search.safetensors   arrays that belong to those two
    blend.safetensors    the signals added to the scorer; absent if it ranks alone
    linked.safetensors   lists by which their best items are found; absent if all are scored
    lexicon.json         the words by which attributes are known (``newshelf.attributes.lexicon``)

Embeddings and vectors are rows of unit length, in the order of the items. All but the two JSON
files are memory-mapped, so the workers of one machine share them.
"""

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from newshelf.attributes.lexicon import Lexicon, read_lexicon
from newshelf.errors import VersionMismatch, WeightsError
from newshelf.files import StrictModel, read_json
from newshelf.nn.blend import Blend
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.numpy_scorer import Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable, TextReader
from newshelf.serving.search.base import FloatArray, Search, SearchManifest, Tensors, open_search

FORMAT = 3
MANIFEST, ITEMS, LEXICON = "index.json", "items.safetensors", "lexicon.json"
VECTORS, SEARCH = "vectors.safetensors", "search.safetensors"
LINKED = "linked.safetensors"


class IndexManifest(StrictModel):
    """``index.json``."""

    format: Literal[3] = 3
    encoder_version: str
    index_version: str
    """12 hex digits of the SHA-256 of items, vectors, searches, signals and knowledge."""
    items: int
    embedding: int
    """Width of an embedding."""
    vector: int | None
    """Width of a projected vector; None without a scorer."""
    search: Mapping[Literal["embeddings", "vectors"], SearchManifest] = {}
    """How they are searched; what is not named is searched as it is."""
    pooling: Pooling | None = None
    """The scorer's learned numbers; None without one."""
    blend: BlendSpec | None = None
    """Weights of the signals added to the scorer."""
    linked: bool = False
    knowledge: int | None = None
    """Statements beyond the columns; None in an index that was made without any. Such an index
    knows what its columns state."""
    extras: tuple[str, ...] = ()


def read_manifest(directory: Path) -> IndexManifest:
    """``index.json`` of an index, or ``VersionMismatch`` if another Newshelf wrote it."""
    found = read_json(directory / MANIFEST)
    written = found.get("format") if isinstance(found, dict) else None
    if isinstance(written, int) and written != FORMAT:
        raise VersionMismatch(
            f"the index {directory} has format {written}, but this Newshelf reads format "
            f"{FORMAT}: export it again"
        )
    return IndexManifest.model_validate(found)


@dataclass(frozen=True)
class IndexKnowledge:
    """Statements by the items' rows, and the words that made them."""

    rows: Sequence[tuple[int, str, str, float]]
    """Row of the item, attribute, value, confidence."""
    lexicon: Lexicon

    def __len__(self) -> int:
        return len(self.rows)


_LENGTH_BYTES = 8
_TYPES: Mapping[str, type[np.generic]] = {
    "F32": np.float32,
    "F64": np.float64,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U32": np.uint32,
}


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a file, read-only."""
    # The library sees that the header is sound and that the file ends where it says.
    with safe_open(path, framework="numpy"):
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in _TYPES:
            raise ValueError(f"arrays of type {entry['dtype']} are not mapped")
        offset = _LENGTH_BYTES + length + entry["data_offsets"][0]
        count = int(np.prod(entry["shape"]))
        flat = np.frombuffer(data, _TYPES[entry["dtype"]], count, offset)
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


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
    """The signals added to the scorer; None where it ranks alone."""
    linked: Tensors | None = None
    """Lists for ``BlendLookup.best``; None where the items are few enough to score all."""

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def links(self) -> BlendLookup | None:
        """Lookups of the blend's links."""
        return None if self.blend is None else BlendLookup(self.blend, self.linked)


def load_index(directory: Path, *, encoder_version: str, min_confidence: float = 0.6) -> ItemIndex:
    """Load an index and check that it belongs to the encoder; leave out what is less sure."""
    try:
        manifest = read_manifest(directory)
        if manifest.encoder_version != encoder_version:
            raise VersionMismatch(
                f"the index {directory} was made by encoder {manifest.encoder_version}, but "
                f"this is encoder {encoder_version}: export both from one checkpoint"
            )
        table = _load_table(directory, manifest, min_confidence)
        tensors = map_tensors(directory / VECTORS)
        kept = map_tensors(directory / SEARCH) if manifest.search else {}
        linked = map_tensors(directory / LINKED) if manifest.linked else None
        if linked is not None and len(linked["places"]) != manifest.items:
            raise VersionMismatch(f"{directory / LINKED} is of another index: export it again")
    except (OSError, ValidationError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(f"the index {directory} cannot be loaded: {error}") from error
    blend = None if manifest.blend is None else Blend.load(directory, manifest.blend, map_tensors)
    _check_shapes(directory, manifest, table, tensors, blend)
    vectors = tensors.get("vectors")

    def search(name: Literal["embeddings", "vectors"]) -> Search:
        chosen = manifest.search.get(name)
        return open_search(tensors[name], directory, name, chosen, kept)

    return ItemIndex(
        manifest,
        table,
        tensors["embeddings"],
        vectors,
        search("embeddings"),
        None if vectors is None else search("vectors"),
        blend,
        linked,
    )


def read_columns(directory: Path) -> dict[str, list[object]]:
    """Read ``INDEX_COLUMNS`` and further columns of an index, with None where a value is absent."""
    try:
        table = _load_table(directory, read_manifest(directory), 1.0)
    except (OSError, ValidationError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(f"the index {directory} cannot be read: {error}") from error
    return {name: table.cells(name) for name in (*INDEX_COLUMNS, *table.extras)}


def _load_table(directory: Path, manifest: IndexManifest, least: float) -> ItemTable:
    reader = TextReader()
    if manifest.knowledge is not None:
        reader = TextReader(read_lexicon(directory / LEXICON), least)
    table = ItemTable.stored(map_tensors(directory / ITEMS), manifest.extras, reader)
    if len(table) != manifest.items or len(table.known.row) != (manifest.knowledge or 0):
        raise VersionMismatch(
            f"the index {directory} holds {len(table)} items and {len(table.known.row)} statements "
            f"where its manifest says {manifest.items} and {manifest.knowledge}: export it again"
        )
    return table


def _check_shapes(
    directory: Path,
    manifest: IndexManifest,
    table: ItemTable,
    tensors: Tensors,
    blend: Blend | None,
) -> None:
    found = (
        len(table),
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
