"""The two files of an index that say what is known of its items beyond the columns.

``knowledge.parquet`` has one statement per row: ``row`` int32, ``attribute``, ``value``,
``confidence`` float64. ``lexicon.json`` is ``newshelf.knowledge.lexicon``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from newshelf.knowledge.lexicon import Lexicon, read_lexicon

__all__ = ["IndexKnowledge"]

_STATEMENTS, _LEXICON = "knowledge.parquet", "lexicon.json"
_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("confidence", pa.float64()),
    ]
)


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
        columns = list(zip(*self.rows, strict=True)) or [()] * len(_SCHEMA)
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, _SCHEMA, strict=True)
        ]
        pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), folder / _STATEMENTS)
        self.lexicon.write(folder / _LEXICON)

    @classmethod
    def load(cls, folder: Path) -> "IndexKnowledge":
        """Read both files.

        Raises:
            WeightsError: the lexicon is missing or damaged.
            OSError | ValueError | pyarrow.ArrowException: the statements are.
        """
        table = pq.read_table(folder / _STATEMENTS, schema=_SCHEMA)
        columns = [column.to_pylist() for column in table.columns]
        return cls(list(zip(*columns, strict=True)), read_lexicon(folder / _LEXICON))
