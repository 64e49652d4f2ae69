"""Opening of a search that ``build_search`` wrote."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import WeightsError
from newshelf.serving.search.base import FloatArray, PlainSearch, Search, SearchManifest, codes_file

Tensors = Mapping[str, NDArray[np.generic]]


def open_search(
    matrix: FloatArray,
    folder: Path,
    name: str,
    manifest: SearchManifest | None,
    tensors: Tensors,
) -> Search:
    """The search of a matrix.

    Args:
        matrix: ``(N, D)`` float32.
        folder: holds ``NAME.faiss``.
        name: the matrix's.
        manifest: what ``build_search`` returned.
        tensors: likewise.

    Raises:
        WeightsError: a file is missing, damaged, or of another matrix.
    """
    if manifest is None:
        return PlainSearch(matrix)
    # faiss is loaded only by those who need it: it takes 15 MB of each worker.
    from newshelf.serving.search.ann import open_ann  # noqa: PLC0415
    from newshelf.serving.search.exact import open_int8  # noqa: PLC0415

    opener = open_int8 if manifest.lists is None else open_ann
    try:
        return opener(matrix, folder / codes_file(name), name, manifest, tensors)
    except KeyError as error:
        raise WeightsError(
            f"the search of {name} in {folder} lacks {error}: export it again"
        ) from error
