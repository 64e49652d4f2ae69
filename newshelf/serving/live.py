"""The index as it is now: a base, and what has changed since.

Every product has a *position*::

    0 … N - 1    rows of the base index
    N … P - 1    rows of the segments, in order: the delta
    P …          products that a request brought along

A row that a later one replaced, or that was removed, keeps its position and is never ``alive``.
``Positions`` turns positions into columns, masks, embeddings, vectors and links; whoever ranks or
filters goes through it and need not know where a product comes from.

What was computed for the archive's index stays valid whatever changes: a product refers to the row
of that index whose links it has (``origin``), or else to the rows that it is nearest to, and to the
row whose precomputed terms it shares (``unchanged``). So a ranking over base and delta is the one
over the index that both are folded into.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from newshelf.nn.blend import NEAREST, popularity_growth
from newshelf.nn.blend_lookup import Newcomers
from newshelf.nn.rows import first_allowed
from newshelf.serving.columns import Column, TextColumn, typed_column
from newshelf.serving.index import ItemIndex
from newshelf.serving.item_table import ItemTable, KnownValues
from newshelf.serving.rule_masks import CompiledRules
from newshelf.serving.rules import RuleSet
from newshelf.serving.search.base import FloatArray, IntArray, Mask, best_rows
from newshelf.serving.segments import Current, Segment, SegmentShape


@dataclass(frozen=True, eq=False)
class LinkRows:
    """Rows of the archive's index that ``R`` products refer to."""

    origin: IntArray
    """``(R,)``: with the same id, whose links and prior they have; -1 for a new product."""
    unchanged: IntArray
    """``(R,)``: with the same embedding and vector, too; otherwise -1."""
    nearest: IntArray
    """``(R, m)``: nearest by content, whose links a new product takes."""
    shares: FloatArray
    """``(R, m)``: of these."""

    @classmethod
    def of_archive(cls, index: ItemIndex) -> "LinkRows":
        """Return those of the archive's own products."""
        rows, none = np.arange(len(index)), np.zeros((0, nearest_count(index)))
        return cls(rows, rows, none.astype(np.int64), none.astype(np.float32))

    @classmethod
    def of_new(cls, nearest: IntArray, shares: FloatArray) -> "LinkRows":
        """Return those of products that the archive does not know."""
        none = np.full(len(nearest), -1)
        return cls(none, none, nearest, shares)


def nearest_count(index: ItemIndex) -> int:
    """Return the number of neighbours of a new product; 0 for an index without links."""
    return 0 if index.blend is None else min(NEAREST, len(index))


def segment_shape(archive: ItemIndex) -> SegmentShape:
    """Return the sizes of the segments that change an archive's index."""
    manifest = archive.manifest
    return SegmentShape(manifest.embedding, manifest.vector, len(archive), nearest_count(archive))


@dataclass(frozen=True, eq=False)
class Block:
    """``R`` products at consecutive positions: a base, a segment, or those of a request."""

    table: ItemTable
    embeddings: FloatArray
    """``(R, 512)``, of unit length."""
    vectors: FloatArray | None
    """``(R, P)``; None without a scorer."""
    find_links: Callable[[], LinkRows]
    """Called when links are first asked for."""

    @cached_property
    def links(self) -> LinkRows:
        """The rows of the archive that they refer to."""
        return self.find_links()

    @cached_property
    def new(self) -> IntArray:
        """Rows without an origin, in increasing order."""
        return np.flatnonzero(self.links.origin < 0)

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True, eq=False)
class Positions:
    """Products of several blocks under one numbering."""

    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return self.starts[-1]

    @cached_property
    def starts(self) -> list[int]:
        """The first position of each block, and the number of positions."""
        return [0, *accumulate(map(len, self.blocks))]

    @cached_property
    def tables(self) -> list[tuple[int, ItemTable]]:
        """All tables in order, each with the position of its first row."""
        return [(start, block.table) for start, block in self.placed]

    @cached_property
    def placed(self) -> list[tuple[int, Block]]:
        """All blocks, each with its first position."""
        return list(zip(self.starts, self.blocks, strict=False))

    def plus(self, block: Block) -> "Positions":
        """Return these, followed by the products of another block."""
        return Positions((*self.blocks, block)) if len(block) else self

    def at(self, position: int) -> tuple[ItemTable, int]:
        """Return the table and row of a position."""
        start, block = self.placed[bisect_right(self.starts, position) - 1]
        return block.table, position - start

    def mask(self, of: Callable[[ItemTable], Mask]) -> Mask:
        """Return a condition of all positions, dead ones too, from one table's: ``(P,)``."""
        masks = [of(table) for _, table in self.tables]
        return masks[0] if len(masks) == 1 else np.concatenate(masks)

    def embeddings(self, positions: IntArray) -> FloatArray:
        """``(len(positions), 512)``."""
        return self._take(lambda block: block.embeddings, positions)

    def vectors(self, positions: IntArray) -> FloatArray:
        """``(len(positions), P)``; only with a scorer."""
        return self._take(_vectors, positions)

    def origin(self, positions: IntArray) -> IntArray:
        """``(len(positions),)``: see ``LinkRows``."""
        return self._take(lambda block: block.links.origin, positions)

    def unchanged(self, positions: IntArray) -> IntArray:
        """``(len(positions),)``: see ``LinkRows``."""
        return self._take(lambda block: block.links.unchanged, positions)

    def neighbours(self, positions: IntArray) -> tuple[IntArray, FloatArray]:
        """``(len(positions), m)`` each; only of positions without an origin."""
        return (
            self._take(lambda block: block.links.nearest, positions),
            self._take(lambda block: block.links.shares, positions),
        )

    def _take(self, of: Callable[[Block], NDArray[Any]], positions: IntArray) -> NDArray[Any]:
        first = of(self.blocks[0])
        if len(self.blocks) == 1:
            return first.take(positions, axis=0)
        taken = np.empty((len(positions), *first.shape[1:]), dtype=first.dtype)
        order = None
        if len(positions) > 1 and (positions[1:] < positions[:-1]).any():
            order = np.argsort(positions)
            positions = positions[order]
        # Rows of a block follow each other; most requests touch few blocks.
        bounds = positions.searchsorted(self.starts).tolist()
        for (start, block), begin, end in zip(self.placed, bounds[:-1], bounds[1:], strict=True):
            if begin < end:
                rows = positions[begin:end] - start
                of(block).take(rows, axis=0, out=taken[begin:end], mode="clip")
        if order is not None:
            taken[order] = taken.copy()
        return taken


def _vectors(block: Block) -> FloatArray:
    if block.vectors is None:
        raise ValueError("an index without a scorer has no projected vectors")
    return block.vectors


@dataclass(frozen=True, eq=False)
class LiveIndex:
    """The products that can be recommended now. A publication makes another one."""

    archive: ItemIndex
    """What the model was exported with: its links, neighbours and precomputed terms."""
    base: ItemIndex
    """The archive's, or one that segments were folded into."""
    positions: Positions
    place: Mapping[str, int]
    """Position of each id that the delta has; -1 where it was removed."""
    alive: Mask
    """``(P,)``: rows that no later one replaced, of products that were not removed."""
    in_stock: Mask
    """``(P,)``: those of them that are not out of stock."""
    places: IntArray
    """``(T,)``: the base's row that has the links of each of the archive's; -1 where none has."""
    added: Mapping[str, float] = field(default_factory=dict)
    """Recent interactions by id, which the tables' popularity has on top of the archive's."""
    current: Current | None = None
    """The publication; None for an archive by itself."""
    rules: CompiledRules | None = None
    parent: "LiveIndex | None" = None
    """The index before its last segment."""

    @classmethod
    def of(cls, archive: ItemIndex) -> "LiveIndex":
        """Return an archive's index without changes."""
        return cls.over(archive, archive, LinkRows.of_archive(archive))

    @classmethod
    def over(
        cls,
        archive: ItemIndex,
        base: ItemIndex,
        links: LinkRows,
        added: Mapping[str, float] | None = None,
    ) -> "LiveIndex":
        """Return a base without segments, with ``links`` to the archive and recent interactions."""
        table, added = base.table, added or {}
        if added:
            popularity = np.array(table.popularity)
            rows = table.rows(added)
            recent = np.fromiter(added.values(), np.float64, len(rows))
            popularity[rows[rows >= 0]] += recent[rows >= 0]
            table = table.with_popularity(popularity)
        block = Block(table, base.embeddings, base.vectors, lambda: links)
        alive = np.ones(len(base), dtype=np.bool_)
        places = np.full(len(archive), -1)
        rows = np.flatnonzero(links.origin >= 0)
        places[links.origin[rows]] = rows
        return cls(archive, base, Positions((block,)), {}, alive, table.in_stock, places, added)

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def version(self) -> str:
        """The archive's index, and the last change to it: ``ab12cd34ef56+1234``."""
        version = self.archive.manifest.index_version
        return version if self.current is None else f"{version}+{self.current.seq}"

    @property
    def shape(self) -> SegmentShape:
        """Sizes of its segments."""
        return segment_shape(self.archive)

    @property
    def is_archive(self) -> bool:
        """Return True where positions are the rows of the archive's index."""
        return self.base is self.archive and len(self.positions.blocks) == 1

    def with_rules(self, rules: RuleSet, before: CompiledRules | None = None) -> "LiveIndex":
        """Return the index with rules; see ``CompiledRules``."""
        tables = [table for _, table in self.positions.tables]
        return replace(self, rules=CompiledRules(rules, tables, before))

    def rows(self, ids: Collection[str | None]) -> IntArray:
        """Return the position of each id, ``(len(ids),)``; -1 for one that is not there."""
        found = self.base.table.rows(ids)
        if not self.place:
            return found
        places = map(self.place.get, ids, found.tolist())  # type: ignore[arg-type]
        return np.fromiter(places, dtype=np.int64, count=len(ids))

    def mask(self, of: Callable[[ItemTable], Mask]) -> Mask:
        """Return a condition of all that is alive, from that of one table: ``(P,)``, new."""
        mask = self.positions.mask(of)
        return mask if self.is_archive else mask & self.alive

    def nearest(self, query: FloatArray, allowed: Mask, limit: int, *, projected: bool) -> IntArray:
        """Return the allowed positions nearest to an embedding or vector, in increasing order."""
        search = self.base.vector_search if projected else self.base.embedding_search
        if search is None:
            raise ValueError("an index without a scorer has no projected vectors")
        count = len(self.base)
        found = search.nearest(query, allowed[:count], limit)
        fresh = np.flatnonzero(allowed[count:])
        if not len(fresh):
            return found
        base, *delta = (
            _vectors(block) if projected else block.embeddings for block in self.positions.blocks
        )
        of_delta = np.concatenate([rows @ query for rows in delta])[fresh]
        scores = np.concatenate([base.take(found, axis=0) @ query, of_delta])
        return best_rows(np.concatenate([found, count + fresh]), scores, limit)

    @cached_property
    def new(self) -> IntArray:
        """Positions of what the archive does not know, in increasing order; dead ones too."""
        return np.concatenate([start + block.new for start, block in self.positions.placed])

    @cached_property
    def newcomers(self) -> Newcomers | None:
        """The links of all ``new`` ones; None without any, and for an archive without links."""
        links = self.archive.links
        if links is None or not len(self.new):
            return None
        known = None if self.parent is None else self.parent.newcomers
        rest = self.new if known is None else self.new[len(known.prior) :]
        found = links.newcomers(*self.positions.neighbours(rest))
        if known is None:
            return found
        shares = sparse.vstack([known.shares, found.shares], format="csr")
        return Newcomers(shares, np.concatenate([known.prior, found.prior]))

    def archive_mask(self, allowed: Mask) -> Mask:
        """Return a mask of positions, ``(P,)``, as one of the archive's rows, ``(T,)``."""
        if self.is_archive:
            return allowed
        if self.base is self.archive:
            mask = allowed[: len(self.archive)].copy()
        else:
            mask = allowed.take(self.places) & (self.places >= 0)
        origin, moved = self._moved
        mask[origin[allowed[moved]]] = True
        return mask

    def of_archive(self, rows: IntArray) -> IntArray:
        """Return the positions that have the links of rows that ``archive_mask`` allows."""
        if self.is_archive:
            return rows
        positions = self.places.take(rows)
        origin, moved = self._moved
        if len(origin):
            at = np.minimum(origin.searchsorted(rows), len(origin) - 1)
            there = origin[at] == rows
            positions[there] = moved[at[there]]
        return positions

    @cached_property
    def _moved(self) -> tuple[IntArray, IntArray]:
        """Rows of the archive, in increasing order, whose links the delta has; positions."""
        none = np.zeros(0, dtype=np.int64)
        origin = np.concatenate([none, *(one.links.origin for one in self.positions.blocks[1:])])
        start = len(self.base)
        rows = np.flatnonzero(self.alive[start:] & (origin >= 0))
        order = rows[np.argsort(origin[rows])]
        return origin[order], start + order

    def popular(self, among: Mask, limit: int) -> tuple[IntArray, NDArray[np.float64]]:
        """Return the most popular of ``among``, ``(P,)`` or longer, and their shares of all
        interest.
        """
        table = self.positions.tables[0][1]
        order, count = table.popular_first, len(table)
        positions = first_allowed(order, among, limit)
        if self.is_archive and len(among) == count:
            return positions, table.popularity[positions] / table.interest
        beyond = count + np.flatnonzero(among[count:])
        positions = np.concatenate([positions, beyond])
        brought = np.zeros(max(0, len(among) - len(self)))
        popularity = np.concatenate([self._popularity, brought])[positions]
        best = np.argsort(-popularity, kind="stable")[:limit]
        return positions[best], popularity[best] / self._interest

    @cached_property
    def _popularity(self) -> NDArray[np.float64]:
        return np.concatenate([table.popularity for _, table in self.positions.tables])

    @cached_property
    def _interest(self) -> float:
        """All interactions with all that is alive; at least 1."""
        return max(float(self._popularity[self.alive].sum()), 1.0)

    @cached_property
    def growth(self) -> tuple[IntArray, NDArray[np.float64]]:
        """Positions with growing popularity, in increasing order, and ``popularity_growth``."""
        recent = np.array(list(self.added.values()), dtype=np.float64)
        positions = self.rows(list(self.added))
        order = np.argsort(positions)[np.count_nonzero(positions < 0) :]
        positions, recent = positions[order], recent[order]
        earlier = self._popularity[positions] - recent
        growth = popularity_growth(
            recent,
            earlier,
            earlier_total=self._interest - float(recent.sum()),
            items=int(np.count_nonzero(self.alive)),
        )
        return positions[growth > 0], growth[growth > 0].round(4)

    def prepare(self) -> None:
        """Compute what requests would otherwise wait for."""
        _ = self.newcomers, self._moved, self.positions.tables

    def plus(self, name: str, segment: Segment) -> "LiveIndex":
        """Return the index with a further segment."""
        table = segment_table(segment, self.base.table, self.added)
        removed = self.rows(segment.removed).tolist()
        gone = [item for item, row in zip(segment.removed, removed, strict=True) if row >= 0]
        killed = self.rows([*table.id, *gone])
        killed = killed[killed >= 0]
        put = {item: len(self) + row for row, item in enumerate(table.id)}
        alive = np.concatenate([self.alive, np.ones(len(table), dtype=np.bool_)])
        in_stock = np.concatenate([self.in_stock, table.in_stock])
        alive[killed] = in_stock[killed] = False
        links = self._links_of(segment)
        current = self.current or Current(seq=0)
        return replace(
            self,
            positions=self.positions.plus(
                Block(table, segment.embeddings, segment.vectors, lambda: links)
            ),
            place={**self.place, **dict.fromkeys(gone, -1), **put},
            alive=alive,
            in_stock=in_stock,
            current=current.model_copy(update={"segments": (*current.segments, name)}),
            parent=self,
        )

    def _links_of(self, segment: Segment) -> LinkRows:
        """Return the segment's, with those rows that encoding did not change."""
        origin, archive = segment.origin, self.archive
        same = origin >= 0
        known = origin[same]
        same[same] = (segment.embeddings[same] == archive.embeddings[known]).all(axis=1)
        if segment.vectors is not None and archive.vectors is not None:
            known = origin[same]
            same[same] = (segment.vectors[same] == archive.vectors[known]).all(axis=1)
        return LinkRows(origin, np.where(same, origin, -1), segment.nearest, segment.shares)


def segment_table(segment: Segment, base: ItemTable, popularity: Mapping[str, float]) -> ItemTable:
    """Return the columns of a segment's products, of the base's types, with added popularity."""
    total = [
        count + popularity.get(item, 0.0)
        for item, count in zip(segment.columns["id"], segment.columns["popularity"], strict=True)
    ]
    table = ItemTable.from_columns(
        {**segment.columns, "popularity": total},
        KnownValues.from_rows(segment.knowledge, base.known.reader),
    )
    names = dict.fromkeys([*base.extras, *(name for row in segment.extras for name in row)])
    extras = {
        name: _alike(base.extras.get(name), [row.get(name) for row in segment.extras])
        for name in names
    }
    return replace(table, extras=extras)


def _alike(column: Column | None, cells: Sequence[object]) -> Column:
    """Return cells as a column of the same type as another one, absent where they cannot be."""
    typed = typed_column(cells)
    if isinstance(column, np.ndarray) and not isinstance(typed, np.ndarray):
        ones = [typed_column([cell]) for cell in cells]
        return np.array([one[0] if isinstance(one, np.ndarray) else np.nan for one in ones])
    if column is not None and not isinstance(column, np.ndarray) and isinstance(typed, np.ndarray):
        return TextColumn.of([None if cell in (None, "") else str(cell) for cell in cells])
    return typed
