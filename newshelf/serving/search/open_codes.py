"""The searches that need faiss."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from newshelf.errors import WeightsError
from newshelf.serving.search.ann import AnnSearch
from newshelf.serving.search.base import FloatArray
from newshelf.serving.search.codes import Codes
from newshelf.serving.search.exact import Int8Search
from newshelf.serving.search.faiss_scan import FlatScan, ListScan, read_faiss
from newshelf.serving.search.lists import Lists
from newshelf.serving.search.manifest import SearchManifest

__all__ = ["open_ann", "open_int8"]

Tensors = Mapping[str, NDArray[Any]]


def open_int8(
    matrix: FloatArray,
    path: Path,
    name: str,
    manifest: SearchManifest,
    tensors: Tensors,
) -> Int8Search:
    """See ``open_search``."""
    index = read_faiss(path, faiss.IndexScalarQuantizer, manifest.bytes, *matrix.shape)
    return Int8Search(
        matrix, _codes(matrix, manifest, tensors[f"{name}.rotation"], path), FlatScan(index)
    )


def open_ann(
    matrix: FloatArray,
    path: Path,
    name: str,
    manifest: SearchManifest,
    tensors: Tensors,
) -> AnnSearch:
    """See ``open_search``."""
    index = read_faiss(path, faiss.IndexIVFScalarQuantizer, manifest.bytes, *matrix.shape)
    lists = Lists(
        tensors[f"{name}.centroids"], tensors[f"{name}.sizes"], tensors[f"{name}.members"]
    )
    found = (index.nlist, lists.centroids.shape, lists.sizes.shape, lists.members.shape)
    count, (rows, width) = manifest.lists, matrix.shape
    held = np.array([index.invlists.list_size(at) for at in range(index.nlist)])
    if found != (count, (count, width), (count,), (rows,)) or (held != lists.sizes).any():
        raise WeightsError(f"the lists of {path} are of another index: export it again")
    codes = _codes(matrix, manifest, tensors[f"{name}.rotation"], path)
    return AnnSearch(matrix, codes, lists, ListScan(index), manifest.budgets)


def _codes(matrix: FloatArray, manifest: SearchManifest, rotation: FloatArray, path: Path) -> Codes:
    if rotation.shape != (matrix.shape[1],) * 2:
        raise WeightsError(f"the rotation of {path} is of another index: export it again")
    return Codes(rotation, manifest.step, manifest.row_norm, manifest.row_error)
