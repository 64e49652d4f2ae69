"""The file that holds what is known of a catalogue's products.

``knowledge.parquet``::

    item_id      the product
    attribute    product_type, brand, color, material, style; from a tagger also model, other
    value        one name for what is the same: 红色 and red are "red"
    source       stated, title, description, tagger, "picture+text model", implied
    confidence   0 … 1
    start, end   where it is said: characters of the title or description; null otherwise
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newshelf.errors import CatalogError
from newshelf.files import write_aside
from newshelf.knowledge.facts import Fact, FactSource

__all__ = ["FACTS_FILE", "LEXICON_FILE", "read_facts", "write_facts"]

FACTS_FILE, LEXICON_FILE = "knowledge.parquet", "lexicon.json"

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("confidence", pa.float64()),
        ("start", pa.int32()),
        ("end", pa.int32()),
    ]
)
_NOT_NULL = ("item_id", "attribute", "value", "source", "confidence")


def write_facts(facts: Sequence[Fact], path: Path) -> None:
    """Write the table, aside and renamed."""
    columns = list(zip(*facts, strict=True)) or [()] * len(_SCHEMA)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)
    ]
    with write_aside(path) as aside:
        pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), aside)


def read_facts(path: Path) -> pa.Table:
    """Read and check the table.

    Returns:
        A table with the columns above.

    Raises:
        CatalogError: it is missing or damaged, a column is missing or of another type, a
            cell is empty, or a confidence is out of range.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CatalogError(f"the knowledge table {path} cannot be read: {error}") from error
    for column in _SCHEMA:
        found = table.schema.field(column.name).type if column.name in table.column_names else None
        if found != column.type:
            raise CatalogError(
                f"{path}: the column {column.name!r} is {found or 'missing'} instead of "
                f"{column.type}: build the knowledge again"
            )
    for name in _NOT_NULL:
        if table.column(name).null_count:
            raise CatalogError(f"{path}: the column {name!r} has empty cells")
    _check_ranges(table, path)
    return table.select(_SCHEMA.names)


def _check_ranges(table: pa.Table, path: Path) -> None:
    confidence = table.column("confidence")
    inside = pc.and_(pc.greater_equal(confidence, 0.0), pc.less_equal(confidence, 1.0))
    # NaN compares false, and an empty table has nothing out of range.
    row = pc.index(inside, value=False).as_py()
    if row >= 0:
        raise CatalogError(
            f"{path} row {row + 1}: the confidence {confidence[row].as_py()} is not in 0 … 1"
        )
    sources = get_args(FactSource)
    unknown = set(pc.unique(table.column("source")).to_pylist()) - set(sources)
    if unknown:
        raise CatalogError(f"{path}: the source {min(unknown)!r} is none of {', '.join(sources)}")
