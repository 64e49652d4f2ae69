"""The index: the items that can be recommended, with their vectors and the search over them.

Files of an index's folder::

    index.json           format, encoder_version, index_version, items, embedding, vector, …
    items.json           INDEX_COLUMNS: ``{column: [value of each item]}``
    vectors.safetensors  embeddings (N, 512) float32; vectors (N, P) float32 with a scorer
    embeddings.faiss     the same as int8, for search; absent if the float32 rows are few enough
    vectors.faiss        to be searched directly
    search.safetensors   arrays that belong to those two
    blend.safetensors    the signals added to the scorer; absent if it ranks alone
    knowledge.json       inferred attributes: ``[row, attribute, value, confidence]`` each
    lexicon.json         the words by which they were inferred (``newshelf.attributes.lexicon``)

Embeddings and vectors are rows of unit length, in the order of the items. They and the search files
are memory-mapped, so the workers of one machine share them. The items are JSON, since a library
that reads tables would take more memory per worker than they do.
"""

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from newshelf.attributes.lexicon import Lexicon, read_lexicon
from newshelf.errors import VersionMismatch, WeightsError
from newshelf.files import read_json
from newshelf.nn.blend import Blend
from newshelf.nn.numpy_scorer import Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable, KnownValues, TextReader
from newshelf.serving.search.base import Search, SearchManifest
from newshelf.serving.search.open import open_search

FORMAT = 2
MANIFEST, ITEMS = "index.json", "items.json"
VECTORS, SEARCH = "vectors.safetensors", "search.safetensors"


class IndexManifest(BaseModel):
    """``index.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    encoder_version: str
    """The model version whose encoder made the embeddings."""
    index_version: str
    """12 hex digits of the SHA-256 of items, vectors, searches, signals and knowledge."""
    items: int
    embedding: int
    """Width of an embedding."""
    vector: int | None
    """Width of a projected vector; None without a scorer."""
    search: dict[Literal["embeddings", "vectors"], SearchManifest] = {}
    """How they are searched; what is not named is searched as it is."""
    pooling: Pooling | None = None
    """The scorer's learned numbers; without them, its graph is asked."""
    blend: BlendSpec | None = None
    """Weights of the signals added to the scorer."""
    knowledge: int | None = None
    """Rows of ``knowledge.json``; None in an index that was made without any. Such an index
    knows what its columns state."""


def read_manifest(directory: Path) -> IndexManifest:
    """``index.json`` of an index.

    Raises:
        VersionMismatch: an older or newer Newshelf wrote it.
        OSError | ValueError: it is missing or damaged.
    """
    found = read_json(directory / MANIFEST)
    written = found.get("format") if isinstance(found, dict) else None
    if isinstance(written, int) and written != FORMAT:
        raise VersionMismatch(
            f"the index {directory} has format {written}, but this Newshelf reads format "
            f"{FORMAT}: export it again"
        )
    return IndexManifest.model_validate(found)


_STATEMENTS, _LEXICON = "knowledge.json", "lexicon.json"
_ROWS = TypeAdapter(list[tuple[int, str, str, float]])


@dataclass(frozen=True)
class IndexKnowledge:
    """Statements by the items' rows, and the words that made them."""

    rows: Sequence[tuple[int, str, str, float]]
    """Row of the item, attribute, value, confidence."""
    lexicon: Lexicon

    def __len__(self) -> int:
        return len(self.rows)

    def check(self, items: int) -> None:
        """See that every statement is of one of the items.

        Raises:
            ValueError: one is not.
        """
        for row, attribute, value, _ in self.rows:
            if not 0 <= row < items:
                raise ValueError(f"{attribute} {value!r} is said of row {row} of {items} items")

    def write(self, folder: Path) -> None:
        """Write both files into an index's folder."""
        (folder / _STATEMENTS).write_bytes(orjson.dumps(list(self.rows)))
        self.lexicon.write(folder / _LEXICON)

    @classmethod
    def load(cls, folder: Path) -> "IndexKnowledge":
        """Read both files.

        Raises:
            WeightsError: the lexicon is missing or damaged.
            OSError | ValueError: the statements are.
        """
        rows = _ROWS.validate_json((folder / _STATEMENTS).read_bytes())
        return cls(rows, read_lexicon(folder / _LEXICON))


_LENGTH_BYTES = 8
_TYPES = {"F32": np.float32, "I32": np.int32, "I64": np.int64}


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a file, read-only.

    Raises:
        OSError: it is missing.
        SafetensorError: it is damaged.
        ValueError: it holds a type that is not float32, int32 or int64.
    """
    # The library sees that the header is sound and that the file ends where it says.
    with safe_open(path, framework="numpy"):
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    return {name: _array(data, _LENGTH_BYTES + length, entry) for name, entry in header.items()}


def _array(data: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"arrays of type {entry['dtype']} are not mapped")
    count = int(np.prod(entry["shape"]))
    offset = start + entry["data_offsets"][0]
    flat = np.frombuffer(data, _TYPES[entry["dtype"]], count, offset)
    return flat.reshape(entry["shape"])


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
    """The signals added to the scorer; None where it ranks alone."""

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
