"""A search over many vectors, built once and used again."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from benchmarks.serve.search_data import FloatArray, write_grown
from newshelf.files import directory_aside, read_json, write_json
from newshelf.serving.mapped import map_tensors
from newshelf.serving.search import Search, SearchManifest, open_search
from newshelf.serving.search.build import build_search

__all__ = ["Made", "codes_path", "make"]

_SEED = 20
_NAME = "embeddings"


@dataclass(frozen=True)
class Made:
    """Vectors, and the search that an index of so many items would get."""

    matrix: FloatArray
    folder: Path
    manifest: SearchManifest | None
    build_s: float
    """Seconds that building took."""

    def open(self) -> Search:
        """As a worker opens it."""
        kept = {} if self.manifest is None else map_tensors(self.folder / "search.safetensors")
        return open_search(self.matrix, self.folder, _NAME, self.manifest, kept)


def make(real: FloatArray, rows: int, work: Path) -> Made:
    """Grow ``rows`` vectors and build their search, unless both are there.

    Args:
        real: ``(R, D)`` float32: what they are grown from.
        rows: so many.
        work: a folder for it: 2.6 GB for a million of width 512.
    """
    source = hashlib.sha256(real.tobytes()).hexdigest()[:8]
    matrix = write_grown(real, rows, work / f"{source}-{rows}.f32", _SEED)
    folder = work / f"{source}-{rows}"
    if not folder.exists():
        with directory_aside(folder) as aside:
            start = time.perf_counter()
            manifest, kept = build_search(matrix, aside, _NAME)
            took = time.perf_counter() - start
            if kept:
                save_file(kept, aside / "search.safetensors")
            found = None if manifest is None else manifest.model_dump(mode="json")
            write_json(aside / "made.json", {"search": found, "build_s": took})
    told = read_json(folder / "made.json")
    search = told["search"]
    manifest = None if search is None else SearchManifest.model_validate(search)
    return Made(matrix, folder, manifest, float(told["build_s"]))


def codes_path(made: Made) -> Path:
    """The file that an exact search reads from end to end."""
    return made.folder / f"{_NAME}.faiss"
