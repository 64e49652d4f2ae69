"""Publishing of a model version's shelf: segments, their merging and folding, and clean-up.

``CURRENT`` is the only truth of what is published. Files are written before it names them, and
removed after it has not named them for a while, so a process may be killed at any step.
"""

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from newshelf.errors import WeightsError
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.rules import RuleSet
from newshelf.serving.segments import (
    CURRENT,
    Current,
    Segment,
    SegmentShape,
    read_current,
    read_segment,
    segment_path,
    write_current,
    write_named,
    write_popularity,
    write_segment,
)

_LOG = logging.getLogger(__name__)
_GRACE_S = 60.0
"""Time for workers to load files that ``CURRENT`` has ceased to name."""
_MOST_SEGMENTS = 8
"""With more of them, the last ones are merged: those with at most twice the changes of all later
ones."""

Fold = Callable[[Path, Current, str], object]
"""Writes a base index of this name from what is current in a folder."""


@dataclass(eq=False)
class Publisher:
    """Writes the shelf of one model version; only one process may use its folder."""

    folder: Path
    shape: SegmentShape
    fold: Fold
    executor: Executor
    fold_rows: int
    """Of a delta, from which on it is folded."""

    def __post_init__(self) -> None:
        self._folding: tuple[str, int, Future[object]] | None = None
        self._unnamed_since: dict[Path, float] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.reload()

    def reload(self) -> None:
        """Read what is current."""
        self.current, self._changes = self._read()

    def _read(self) -> tuple[Current, dict[str, int]]:
        """Return what is current and the changes per segment; begin a damaged shelf again."""
        try:
            current = read_current(self.folder) or Current(seq=0)
            if current.base and not (self.folder / current.base).is_dir():
                raise WeightsError(f"the base {self.folder / current.base} is missing")
            changes = {
                name: _changes(read_segment(self.folder, name, self.shape))
                for name in current.segments
            }
        except WeightsError as error:
            _LOG.error("the shelf is published again: %s", error.message)
            return Current(seq=0), {}
        return current, changes

    def begin_again(self) -> None:
        """Forget what is published; ``CURRENT`` stays until the next change."""
        self.current, self._changes = Current(seq=0), {}

    def add(self, segment: Segment, seq: int) -> None:
        """Publish a segment, and all changes up to ``seq``; merge earlier ones if they are many."""
        seq = max(seq, self.current.seq)
        names = self._merged([*self.current.segments])
        self._replace(seq=seq, segments=[*names, self._write(segment, seq)])

    def _merged(self, names: list[str]) -> list[str]:
        fixed = 0 if self._folding is None else self._folding[1]
        if len(names) - fixed < _MOST_SEGMENTS:
            return names
        small = [names.pop()]
        changes = self._changes[small[0]]
        while len(names) > fixed and self._changes[names[-1]] <= 2 * changes:
            changes += self._changes[names[-1]]
            small.insert(0, names.pop())
        if len(small) == 1:
            return [*names, *small]
        segments = [read_segment(self.folder, name, self.shape) for name in small]
        return [*names, self._write(reduce(merge_segments, segments), self.current.seq)]

    def _write(self, segment: Segment, seq: int) -> str:
        name = f"seg-{seq}-{uuid.uuid4().hex[:8]}"
        write_segment(self.folder, name, segment, self.shape)
        self._changes[name] = _changes(segment)
        return name

    def set_popularity(self, interactions: Mapping[str, float]) -> None:
        """Publish interactions to add to the products' popularity."""
        name = write_popularity(self.folder, interactions) if interactions else None
        if name != self.current.popularity:
            self._replace(popularity=name)

    def set_rules(self, rules: RuleSet | None) -> None:
        """Publish merchandising rules; None for none."""
        name = None
        if rules is not None and rules.rules:
            name = write_named(self.folder, "rules", rules.model_dump_json().encode())
        if name != self.current.rules:
            self._replace(rules=name)

    def fold_if_large(self, *, waits: bool = False) -> None:
        """Begin to fold a large delta, or publish the base that is ready.

        While more changes follow at once (``waits``), only one that is ten times as large.
        """
        if self._folding is not None:
            name, count, done = self._folding
            if not done.done():
                return
            self._folding = None
            if error := done.exception():
                _LOG.error("%s could not be made: %r", self.folder / name, error)
                # Not again at once: twice as many changes must come.
                self.fold_rows *= 2
                return
            self._replace(base=name, segments=self.current.segments[count:])
            _LOG.info("%s: folded %d segments into %s", self.folder.name, count, name)
            return
        delta = sum(self._changes[name] for name in self.current.segments)
        if delta > self.fold_rows * (10 if waits else 1):
            number = max(self.current.seq, 1 + max((0, *map(_number, self._bases()))))
            name = f"base-{number}"
            done = self.executor.submit(self.fold, self.folder, self.current, name)
            self._folding = name, len(self.current.segments), done

    def clean(self) -> None:
        """Remove files that are not current any more, except the last two bases."""
        now = self.current
        kept = {
            self.folder / name for name in (CURRENT, now.base, now.popularity, now.rules) if name
        }
        kept |= {segment_path(self.folder, name) for name in now.segments}
        kept |= {*sorted(self._bases(), key=_number)[-2:]}
        if self._folding is not None:
            # Its temporary folder is named after it.
            kept |= {*self.folder.glob(f".{self._folding[0]}*")}
        unnamed = {*self.folder.iterdir()} - kept
        now_s = time.monotonic()
        self._unnamed_since = {path: self._unnamed_since.get(path, now_s) for path in unnamed}
        for path, since_s in self._unnamed_since.items():
            if now_s - since_s > _GRACE_S:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _bases(self) -> list[Path]:
        return [*self.folder.glob("base-*")]

    def _replace(self, **changed: object) -> None:
        current = Current.model_validate({**self.current.model_dump(), **changed})
        write_current(self.folder, current)
        self.current = current
        self._changes = {name: self._changes[name] for name in current.segments}


def merge_segments(first: Segment, second: Segment) -> Segment:
    """Return one segment that changes an index as ``first`` and then ``second`` do."""
    replaced = {*second.columns["id"], *second.removed}
    kept = [row for row, item in enumerate(first.columns["id"]) if item not in replaced]
    place = {row: new for new, row in enumerate(kept)}
    returned = {*second.columns["id"]}
    vectors = None
    if first.vectors is not None and second.vectors is not None:
        vectors = np.concatenate([first.vectors[kept], second.vectors])
    return Segment(
        columns={
            name: [*(first.columns[name][row] for row in kept), *second.columns[name]]
            for name in INDEX_COLUMNS
        },
        extras=[*(first.extras[row] for row in kept), *second.extras],
        knowledge=[
            *((place[fact[0]], *fact[1:]) for fact in first.knowledge if fact[0] in place),
            *((fact[0] + len(kept), *fact[1:]) for fact in second.knowledge),
        ],
        embeddings=np.concatenate([first.embeddings[kept], second.embeddings]),
        vectors=vectors,
        origin=np.concatenate([first.origin[kept], second.origin]),
        nearest=np.concatenate([first.nearest[kept], second.nearest]),
        shares=np.concatenate([first.shares[kept], second.shares]),
        removed=sorted({*first.removed, *second.removed} - returned),
    )


def _changes(segment: Segment) -> int:
    # An empty one counts, so that it is merged too.
    return max(1, len(segment) + len(segment.removed))


def _number(base: Path) -> int:
    number = base.name.partition("-")[2]
    return int(number) if number.isdigit() else 0
