"""Writing of an index, for the export; ``newshelf.serving.index`` describes its files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from safetensors.numpy import save_file

from newshelf.catalog.columns import parse_text
from newshelf.files import directory_aside, write_json
from newshelf.nn.blend import Blend
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.numpy_scorer import Pooling
from newshelf.serving.columns import Arrays
from newshelf.serving.index import (
    ITEMS,
    LEXICON,
    LINKED,
    MANIFEST,
    SEARCH,
    VECTORS,
    IndexKnowledge,
    IndexManifest,
)
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable, KnownValues, TextReader
from newshelf.serving.search.base import FloatArray, SearchManifest
from newshelf.serving.search.build import ANN_ITEMS, COMPRESSED_BYTES, build_search


def write_index(
    directory: Path,
    *,
    encoder_version: str,
    items: pd.DataFrame,
    embeddings: FloatArray,
    vectors: FloatArray | None,
    blend: Blend | None = None,
    knowledge: IndexKnowledge | None = None,
    pooling: Pooling | None = None,
    ann_items: int = ANN_ITEMS,
    compressed_bytes: int = COMPRESSED_BYTES,
) -> IndexManifest:
    """Write an index, aside and renamed.

    ``items`` have ``INDEX_COLUMNS`` and perhaps further ones, with unique ids. In their order are
    ``embeddings``, ``(N, 512)`` float32 of unit length, and ``vectors``, the projected ones, ``(N,
    P)`` float32. With more than ``ann_items`` searches are approximate; vectors of up to
    ``compressed_bytes`` are searched as they are.
    """
    tensors = {"embeddings": np.ascontiguousarray(embeddings, dtype=np.float32)}
    if vectors is not None:
        tensors["vectors"] = np.ascontiguousarray(vectors, dtype=np.float32)
    _check(items, tensors, blend, knowledge)
    table = _table(items, knowledge)
    arrays = {name: np.ascontiguousarray(array) for name, array in table.arrays().items()}
    with directory_aside(directory) as folder:
        save_file(arrays, folder / ITEMS)
        save_file(tensors, folder / VECTORS)
        search = _write_searches(tensors, folder, ann_items, compressed_bytes)
        linked = blend is not None and len(items) > ann_items
        if blend is not None:
            blend.save(folder)
        if blend is not None and linked:
            save_file(dict(BlendLookup(blend).lists()), folder / LINKED)
        if knowledge is not None:
            knowledge.lexicon.write(folder / LEXICON)
        manifest = IndexManifest(
            encoder_version=encoder_version,
            index_version=_version(arrays, tensors, search, blend, knowledge),
            items=len(items),
            embedding=embeddings.shape[1],
            vector=None if vectors is None else vectors.shape[1],
            search=search,
            pooling=pooling,
            blend=None if blend is None else blend.spec,
            linked=linked,
            knowledge=None if knowledge is None else len(knowledge),
            extras=tuple(table.extras),
        )
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _table(items: pd.DataFrame, knowledge: IndexKnowledge | None) -> ItemTable:
    """Plain values, with None where one is absent."""
    columns: dict[str, list[object]] = {}
    for name in (*INDEX_COLUMNS, *items.columns.difference(INDEX_COLUMNS, sort=False)):
        cells = items[name]
        is_number = is_numeric_dtype(cells.dtype) and not is_bool_dtype(cells.dtype)
        if name not in INDEX_COLUMNS and not is_number:
            cells = parse_text(cells)
        cells = cells.astype(object)
        columns[str(name)] = cells.where(cells.notna(), None).tolist()
    if knowledge is None:
        return ItemTable.from_columns(columns)
    reader = TextReader(knowledge.lexicon)
    return ItemTable.from_columns(columns, KnownValues.from_rows(knowledge.rows, reader))


def _check(
    items: pd.DataFrame,
    tensors: Mapping[str, FloatArray],
    blend: Blend | None,
    knowledge: IndexKnowledge | None,
) -> None:
    if items["id"].duplicated().any():
        raise ValueError("the items' ids are not unique")
    for name, tensor in tensors.items():
        if len(tensor) != len(items):
            raise ValueError(f"{len(tensor)} {name} for {len(items)} items")
    if blend is not None and len(blend) != len(items):
        raise ValueError(f"signals of {len(blend)} items for {len(items)} items")
    for row, attribute, value, _ in () if knowledge is None else knowledge.rows:
        if not 0 <= row < len(items):
            raise ValueError(f"{attribute} {value!r} is said of row {row} of {len(items)} items")


def _write_searches(
    tensors: Mapping[str, FloatArray], folder: Path, ann_items: int, compressed_bytes: int
) -> dict[str, SearchManifest]:
    manifests: dict[str, SearchManifest] = {}
    kept: dict[str, NDArray[np.generic]] = {}
    for name, tensor in tensors.items():
        manifest, arrays = build_search(
            tensor, folder, name, ann_items=ann_items, compressed_bytes=compressed_bytes
        )
        if manifest is not None:
            manifests[name] = manifest
            kept |= arrays
    if manifests:
        save_file(kept, folder / SEARCH)
    return manifests


def _version(
    arrays: Arrays,
    tensors: Mapping[str, FloatArray],
    search: Mapping[str, SearchManifest],
    blend: Blend | None,
    knowledge: IndexKnowledge | None,
) -> str:
    digest = hashlib.sha256()
    for name, array in {**arrays, **tensors}.items():
        digest.update(name.encode())
        digest.update(array.data)
    for manifest in search.values():
        digest.update(manifest.model_dump_json().encode())
    if blend is not None:
        digest.update(blend.spec.model_dump_json().encode())
        for array in blend.arrays().values():
            digest.update(array.tobytes())
    if knowledge is not None:
        digest.update(repr(knowledge.lexicon).encode())
    return digest.hexdigest()[:12]
