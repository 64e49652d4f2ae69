"""Tables in Parquet: every Arrow type as cells that keep what the file has."""

import uuid
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as kinds

from newshelf.catalog.names import join_values
from newshelf.catalog.report import Problem
from newshelf.catalog.table import Table, refuse_repeated
from newshelf.errors import CatalogError

__all__ = ["read_parquet"]

_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    **{pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in _INTEGERS},
}
"""Types that pandas would turn into floats or objects because of one missing value."""


def read_parquet(file: str, handle: BinaryIO) -> Table:
    """Read a Parquet file; a column that cannot be read is left out and reported.

    Integers, with or without missing values, stay integers; decimals and UUIDs become text,
    dates midnight UTC, lists of values one text.

    Raises:
        CatalogError: it is no Parquet file, or has a column twice.
    """
    columns: dict[str, pd.Series] = {}
    problems = []
    try:
        # A handle, not the path: pyarrow would read partition columns out of a path
        # such as shop=1/items.parquet.
        table = pq.read_table(handle)
        names = table.column_names
        refuse_repeated(file, names)
        for name, column in zip(names, table.columns, strict=True):
            try:
                columns[name] = _series(name, column)
            except (ValueError, TypeError, NotImplementedError) as error:
                reason = str(error).partition("\n")[0][:200]
                problems.append(Problem(file, None, name, reason, "cell"))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{file} is not a parquet file that can be read: {error}") from error
    frame = pd.DataFrame(columns, index=range(table.num_rows))
    rows = np.arange(1, len(frame) + 1, dtype=np.int64)
    return Table(file, frame, rows, len(frame), tuple(problems))


def _series(name: str, column: pa.ChunkedArray) -> pd.Series:
    kind = column.type
    if kinds.is_dictionary(kind):
        return _series(name, column.cast(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        return _series(name, column.cast(kind.storage_type))
    if kinds.is_struct(kind) and "path" in kind.names:  # a picture as Hugging Face has it
        paths = [chunk.field("path") for chunk in column.chunks]
        return _series(name, pa.chunked_array(paths, kind.field("path").type))
    if kinds.is_nested(kind):
        return pd.Series([join_values(name, cell) for cell in column.to_pylist()], dtype="str")
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        column = _text(column.cast(pa.large_binary()))
    elif kinds.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif kinds.is_decimal(kind) or kinds.is_time(kind) or kinds.is_duration(kind):
        column = column.cast(pa.string())
    return column.to_pandas(types_mapper=_NULLABLE.get if column.null_count else None)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        cells = column.to_pylist()
    try:
        return pa.chunked_array([[cell and str(uuid.UUID(bytes=cell)) for cell in cells]])
    except ValueError:
        reason = "it holds bytes, not text; of a picture, give the path of its file"
        raise ValueError(reason) from None
