"""The files of an index and its manifest.

::

    index.json           format, encoder_version, index_version, items, embedding, vector, …
    items.json           INDEX_COLUMNS: ``{column: [value of each item]}``
    vectors.safetensors  embeddings (N, 512) float32; vectors (N, P) float32 with a scorer
    embeddings.faiss     the same as int8, and how they are searched; absent where the
    vectors.faiss        float32 are few enough to be searched as they are
    search.safetensors   what belongs to those two
    blend.safetensors    the signals beside the scorer; absent where it ranks alone
    knowledge.json       what is known beyond the columns, see ``known``; absent without it
    lexicon.json         the words by which that was found

Embeddings and vectors are rows of unit length, in the order of the items. They and the
searches are mapped into memory, so the workers of one machine share them. The items are
JSON, since a library that reads tables would take more of each worker than they do.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from newshelf.errors import VersionMismatch
from newshelf.files import read_json
from newshelf.nn.pooling import Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.search import SearchManifest

__all__ = ["FORMAT", "ITEMS", "MANIFEST", "SEARCH", "VECTORS", "IndexManifest", "read_manifest"]

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
    """Weights of the signals beside the scorer."""
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
