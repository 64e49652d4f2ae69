"""Columns of many items as arrays, which the workers of one machine map from one file.

A text column is a code per item and the distinct texts; posting lists and the hashes of ids are
computed when an index is written, and looked up without reading the items.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.rows import ragged
from newshelf.serving.search.base import IntArray

Arrays = Mapping[str, NDArray[Any]]


class Strings(Sequence[str]):
    """Texts in one array of UTF-8, from ``(N + 1,)`` int64 offsets."""

    def __init__(self, offsets: IntArray, data: NDArray[np.uint8]) -> None:
        self.offsets, self.data = offsets, data

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Encode texts."""
        return cls.encoded([text.encode() for text in texts])

    @classmethod
    def encoded(cls, texts: Sequence[bytes]) -> Self:
        """Join texts in UTF-8."""
        ends = accumulate(map(len, texts), initial=0)
        offsets = np.fromiter(ends, dtype=np.int64, count=len(texts) + 1)
        return cls(offsets, np.frombuffer(b"".join(texts), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, at: Any) -> Any:
        place = range(len(self))[at]
        if isinstance(place, range):
            return [self[one] for one in place]
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        data, ends = self.data.tobytes(), self.offsets.tolist()
        return (data[start:end].decode() for start, end in pairwise(ends))

    def arrays(self, name: str) -> Arrays:
        """Return the arrays to store."""
        return {f"{name}.offsets": self.offsets, f"{name}.bytes": self.data}

    @classmethod
    def stored(cls, arrays: Arrays, name: str) -> Self:
        """Return what ``arrays`` stored."""
        return cls(arrays[f"{name}.offsets"], arrays[f"{name}.bytes"])


@dataclass(frozen=True, eq=False)
class TextColumn(Sequence[str | None]):
    """Texts of ``N`` items, of which many may be equal or absent."""

    codes: NDArray[np.int32]
    """``(N,)``: place in ``texts``; -1 where absent."""
    texts: Sequence[str]

    @classmethod
    def of(cls, cells: Sequence[str | None]) -> "TextColumn":
        """Code the cells."""
        if isinstance(cells, TextColumn):
            return cells
        code_of: dict[str | None, int] = {}
        codes = [-1 if cell is None else code_of.setdefault(cell, len(code_of)) for cell in cells]
        return cls(np.array(codes, dtype=np.int32), [text for text in code_of if text is not None])

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return list(TextColumn(self.codes[at], self.texts))
        code = self.codes[at]
        return None if code < 0 else self.texts[code]

    def __iter__(self) -> Iterator[str | None]:
        texts = [*self.texts, None]
        return (texts[code] for code in self.codes.tolist())

    def arrays(self, name: str) -> Arrays:
        """Return the arrays to store."""
        return {f"{name}.codes": self.codes, **Strings.of(self.texts).arrays(name)}

    @classmethod
    def stored(cls, arrays: Arrays, name: str) -> "TextColumn":
        """Return what ``arrays`` stored."""
        return cls(arrays[f"{name}.codes"], Strings.stored(arrays, name))


Column = TextColumn | NDArray[np.float64]
"""Texts, or numbers with NaN where one is absent."""


def typed_column(cells: Sequence[object]) -> Column:
    """Return numbers if all present cells are some, without leading zeros; otherwise texts."""
    numbers = [_number(cell) for cell in cells]
    if None not in numbers:
        return np.array(numbers, dtype=np.float64)
    return TextColumn.of([None if _absent(cell) else str(cell) for cell in cells])


def _absent(cell: object) -> bool:
    return cell is None or cell == "" or cell != cell  # noqa: PLR0124 - true of NaN


def _number(cell: object) -> float | None:
    """Return None for what is not a number; NaN for what is absent."""
    if _absent(cell):
        return math.nan
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    if isinstance(cell, str):
        digits = cell.lstrip("+-")
        if not digits.isascii() or (digits[:1] == "0" and digits[1:2].isdigit()) or "_" in digits:
            return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


class IdHashes:
    """Rows of ``N`` ids, found by ``(N,)`` uint32 hashes, which increase, with their int32 rows."""

    def __init__(self, ids: Strings, hashes: NDArray[np.uint32], rows: NDArray[np.int32]) -> None:
        self._ids, self._hashes, self._rows = ids, hashes, rows

    @classmethod
    def of(cls, ids: Strings) -> Self:
        """Hash the ids."""
        hashes = _hashes([item.encode() for item in ids])
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return cls(ids, hashes[order], order)

    def arrays(self) -> Arrays:
        """Return the arrays to store."""
        return {"id.hashes": self._hashes, "id.rows": self._rows}

    def rows(self, ids: Collection[str | None]) -> IntArray:
        """The row of each id, ``(len(ids),)``; -1 where there is none."""
        # No id is empty. A lone surrogate equals nothing.
        wanted = [b"" if item is None else item.encode("utf-8", "surrogatepass") for item in ids]
        found = np.full(len(wanted), -1, dtype=np.int64)
        if not len(self._ids):
            return found
        texts, hashes = Strings.encoded(wanted), _hashes(wanted)
        places, at = np.searchsorted(self._hashes, hashes), np.arange(len(wanted))
        while len(at):
            # Ids of one hash follow each other.
            at = at[places[at] < len(self._hashes)]
            at = at[self._hashes[places[at]] == hashes[at]]
            rows = self._rows[places[at]]
            equal = _equal(self._ids, rows, texts, at)
            found[at[equal]] = rows[equal]
            at = at[~equal]
            places[at] += 1
        return found


def _hashes(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    return np.fromiter(map(crc32, texts), dtype=np.uint32, count=len(texts))


def _equal(
    known: Strings, rows: NDArray[np.int32], wanted: Strings, at: IntArray
) -> NDArray[np.bool_]:
    """``(len(rows),)``: whether the known texts ``rows`` are the wanted ones ``at``."""
    lengths = wanted.offsets[at + 1] - wanted.offsets[at]
    equal: NDArray[np.bool_] = known.offsets[rows + 1] - known.offsets[rows] == lengths
    rows, at, lengths = rows[equal], at[equal], lengths[equal]
    which, places = ragged(known.offsets[rows], lengths)
    _, others = ragged(wanted.offsets[at], lengths)
    unlike = known.data[places] != wanted.data[others]
    equal[equal] = np.bincount(which, unlike, minlength=len(at)) == 0
    return equal


@dataclass(frozen=True, eq=False)
class Postings:
    """Rows of items by key."""

    keys: Sequence[str]
    """``K``, increasing."""
    starts: IntArray
    """``(K + 1,)``: where each key's rows begin, and where the last one's end."""
    rows: NDArray[np.int32]
    """Of each key the surest first."""
    sure: NDArray[np.float32]
    """Confidence of each; 1 for what a column states."""
    least: float
    """Rows below this confidence do not count."""

    def get(self, key: str) -> NDArray[np.int32] | None:
        """The rows of a key, each once; None for an unknown key."""
        place = bisect_left(self.keys, key)
        if place == len(self.keys) or self.keys[place] != key:
            return None
        start, end = self.starts[place : place + 2]
        # In float32, as they are stored: .6 is at least .6.
        enough = self.sure[start:end] >= np.float32(self.least)
        return self.rows[start : start + np.count_nonzero(enough)]

    def arrays(self, name: str) -> Arrays:
        """Return the arrays to store."""
        return {
            **Strings.of(self.keys).arrays(name),
            f"{name}.starts": self.starts,
            f"{name}.rows": self.rows,
            f"{name}.sure": self.sure,
        }

    @classmethod
    def stored(cls, arrays: Arrays, name: str, least: float) -> "Postings":
        """Return what ``arrays`` stored."""
        starts, rows, sure = (arrays[f"{name}.{part}"] for part in ("starts", "rows", "sure"))
        return cls(Strings.stored(arrays, name), starts, rows, sure, least)


def build_postings(stated: Iterable[tuple[int, Iterable[str], float]], least: float) -> Postings:
    """Return the rows of each key, from row, keys and confidence, the surest first."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row, keys, sure in stated:
        for key in keys:
            of_key = found.setdefault(key, ([], []))
            of_key[0].append(row)
            of_key[1].append(sure)
    rows, confidences = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.float32)]
    for key in sorted(found):
        first = np.sort(np.unique(found[key][0], return_index=True)[1])
        rows.append(np.array(found[key][0], dtype=np.int32)[first])
        confidences.append(np.array(found[key][1], dtype=np.float32)[first])
    starts = np.cumsum([len(part) for part in rows])
    return Postings(sorted(found), starts, np.concatenate(rows), np.concatenate(confidences), least)
