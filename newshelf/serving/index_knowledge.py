"""The two files of an index that say what is known of its items beyond the columns.

``knowledge.json`` is a list of statements ``[row, attribute, value, confidence]``.
``lexicon.json`` is ``newshelf.knowledge.lexicon``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from newshelf.knowledge.lexicon import Lexicon, read_lexicon

__all__ = ["IndexKnowledge"]

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
