"""Files of the live shelf: changes to an index since its archive, and which of them are current.

The shelf process writes them and the workers read them, in a folder per model version::

    SHELF/VERSION/CURRENT                   what is current; the only file that is ever replaced
    SHELF/VERSION/seg-NAME.safetensors      a segment: products that were put, ids that were removed
    SHELF/VERSION/base-SEQ/                 an index that earlier segments were folded into
    SHELF/VERSION/popularity-DIGEST.json    interactions to add to the products' popularity
    SHELF/VERSION/rules-DIGEST.json         merchandising rules

Segments are ordered: a later one's row or removal of an id replaces all earlier rows of that id.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from newshelf.errors import WeightsError
from newshelf.files import StrictModel, problems, write_aside
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.search.base import FloatArray, IntArray

CURRENT = "CURRENT"
SHELF_VARIABLE = "NEWSHELF_SHELF"
"""Environment variable of the workers: the folder of all versions' shelves."""

_Texts = list[str | None]
_Fact = tuple[Annotated[int, Field(ge=0)], str, str, float]


class Current(StrictModel):
    """``CURRENT``: the files that make up the shelf of one model version."""

    format: Literal[1] = 1
    seq: Annotated[int, Field(ge=0)]
    """The last change of the store's products that they hold."""
    base: Annotated[str, Field(pattern=r"^base-[0-9]+$")] | None = None
    """Folder of the index that segments change; None is the archive's."""
    segments: tuple[Annotated[str, Field(pattern=r"^seg-[0-9A-Za-z-]+$")], ...] = ()
    """In order."""
    popularity: Annotated[str, Field(pattern=r"^popularity-[0-9a-z]+\.json$")] | None = None
    rules: Annotated[str, Field(pattern=r"^rules-[0-9a-z]+\.json$")] | None = None


def read_current(folder: Path) -> Current | None:
    """Return what is current in a version's folder; None without a shelf."""
    try:
        return Current.model_validate_json((folder / CURRENT).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{folder / CURRENT} cannot be read: {error}") from error
    except ValidationError as error:
        raise WeightsError(f"{folder / CURRENT}: {problems(error, 'the file')}") from error


def write_current(folder: Path, current: Current) -> None:
    """Replace ``CURRENT``, whose files are written; on return it survives a loss of power."""
    _write(folder / CURRENT, current.model_dump_json().encode())


class _Columns(StrictModel):
    id: list[str]
    title: _Texts
    product_type: _Texts
    brand: _Texts
    color: _Texts
    material: _Texts
    size: _Texts
    price: list[float | None]
    availability: _Texts
    created_at: list[Annotated[int, Field(gt=-(2**63), lt=2**63)] | None]
    popularity: list[float]


class _Rows(StrictModel):
    columns: _Columns
    extras: list[dict[str, Any]]
    knowledge: list[_Fact]
    removed: list[str]

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        count, columns = len(self.columns.id), vars(self.columns)
        if {len(values) for values in columns.values()} | {len(self.extras)} != {count}:
            raise ValueError("columns and extras differ in length")
        if len(set(self.columns.id)) != count:
            raise ValueError("an id repeats")
        if any(row >= count for row, *_ in self.knowledge):
            raise ValueError("knowledge of a row that there is not")
        return self


@dataclass(frozen=True)
class SegmentShape:
    """Sizes that the segments of one model version share."""

    embedding: int
    vector: int | None
    """Width of a projected vector; None without a scorer."""
    trained: int
    """Rows of the archive's index, to which ``origin`` and ``nearest`` refer."""
    nearest: int
    """m: ``min(newshelf.nn.blend.NEAREST, trained)``; 0 for an index without a blend."""


@dataclass(frozen=True)
class Segment:
    """``R`` products that were put, and ids that were removed."""

    columns: Mapping[str, Sequence[Any]]
    """``INDEX_COLUMNS``; ids unique. ``popularity`` is that of the base's row, 0 for a new id."""
    extras: Sequence[Mapping[str, object]]
    """``(R,)``: further columns of each."""
    knowledge: Sequence[tuple[int, str, str, float]]
    """Inferred attributes: row of the segment, attribute, value, confidence."""
    embeddings: FloatArray
    """``(R, 512)``, of unit length."""
    vectors: FloatArray | None
    """``(R, P)``, of unit length; None without a scorer."""
    origin: IntArray
    """``(R,)``: the row of the archive's index with the same id, whose links it keeps, or -1."""
    nearest: IntArray
    """``(R, m)``: rows of the archive's index (``newshelf.nn.blend.nearest_shares``); read where
    ``origin`` is -1."""
    shares: FloatArray
    """``(R, m)``: the shares of these."""
    removed: Sequence[str]
    """Ids of the products that are no longer there; none of ``columns["id"]``."""

    def __len__(self) -> int:
        return len(self.columns["id"])

    def check(self, shape: SegmentShape) -> None:
        """Raise ``ValueError`` if the arrays do not fit the model version and each other."""
        rows = len(self)
        wanted = {
            "embeddings": (rows, shape.embedding),
            "origin": (rows,),
            "nearest": (rows, shape.nearest),
            "shares": (rows, shape.nearest),
        }
        if shape.vector is not None:
            wanted["vectors"] = (rows, shape.vector)
        arrays = self.arrays()
        found = {name: array.shape for name, array in arrays.items()}
        if found != wanted:
            raise ValueError(f"arrays of shape {found}, not {wanted}")
        for name in ("embeddings", "vectors", "shares"):
            if name in arrays and not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} are not finite")
        for name, least in (("origin", -1), ("nearest", 0)):
            if ((arrays[name] < least) | (arrays[name] >= shape.trained)).any():
                raise ValueError(f"{name} refers to a row beyond {shape.trained} trained ones")
        if not set(self.removed).isdisjoint(self.columns["id"]):
            raise ValueError("an id is both put and removed")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        arrays: dict[str, NDArray[Any]] = {
            "embeddings": np.asarray(self.embeddings, dtype=np.float32),
            "origin": np.asarray(self.origin, dtype=np.int64),
            "nearest": np.asarray(self.nearest, dtype=np.int64),
            "shares": np.asarray(self.shares, dtype=np.float32),
        }
        if self.vectors is not None:
            arrays["vectors"] = np.asarray(self.vectors, dtype=np.float32)
        return arrays


_ROWS = "rows"


def segment_path(folder: Path, name: str) -> Path:
    """Return the file of a segment."""
    return folder / f"{name}.safetensors"


def write_segment(folder: Path, name: str, segment: Segment, shape: SegmentShape) -> None:
    """Write a segment under a new name, ``seg-…``; on return it survives a loss of power."""
    segment.check(shape)
    rows = _Rows.model_validate(
        {
            "columns": {name: list(segment.columns[name]) for name in INDEX_COLUMNS},
            "extras": list(segment.extras),
            "knowledge": list(segment.knowledge),
            "removed": list(segment.removed),
        }
    )
    text = np.frombuffer(orjson.dumps(rows.model_dump()), dtype=np.uint8)
    arrays = {key: np.ascontiguousarray(array) for key, array in segment.arrays().items()}
    _write(segment_path(folder, name), save({**arrays, _ROWS: text}))


def read_segment(folder: Path, name: str, shape: SegmentShape) -> Segment:
    """Read a segment and check it; ``WeightsError`` if it is missing or does not fit."""
    path = segment_path(folder, name)
    try:
        arrays = load_file(path)
        rows = _Rows.model_validate_json(arrays.pop(_ROWS).tobytes())
        segment = Segment(
            columns=vars(rows.columns),
            extras=rows.extras,
            knowledge=rows.knowledge,
            removed=rows.removed,
            vectors=arrays.pop("vectors", None),
            **arrays,
        )
        segment.check(shape)
    except ValidationError as error:
        raise WeightsError(f"the segment {path} is damaged: {problems(error, 'rows')}") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the segment {path} cannot be loaded: {error}") from error
    return segment


_POPULARITY = TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]])


def write_popularity(folder: Path, interactions: Mapping[str, float]) -> str:
    """Write the interactions to add to the products' popularity, by id; return the file's name."""
    text = orjson.dumps(dict(interactions), option=orjson.OPT_SORT_KEYS)
    return write_named(folder, "popularity", text)


def read_popularity(folder: Path, name: str) -> dict[str, float]:
    """Read what ``write_popularity`` wrote."""
    try:
        return _POPULARITY.validate_json((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / name} cannot be loaded: {error}") from error


def write_named(folder: Path, kind: Literal["popularity", "rules"], data: bytes) -> str:
    """Write a JSON file under a name of its content, and return that."""
    name = f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}.json"
    _write(folder / name, data)
    return name


def _write(path: Path, data: bytes) -> None:
    """Replace a file, and wait until it and its name are on the disk."""
    with write_aside(path) as aside, aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
