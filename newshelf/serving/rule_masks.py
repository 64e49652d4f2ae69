"""Rules compiled to a bit per rule and product when rules or products change.

A request reads the bits of its candidates and compares no column.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from newshelf.serving.columns import TextColumn
from newshelf.serving.item_table import (
    INDEX_COLUMNS,
    ItemTable,
    in_categories,
    type_path,
    with_values,
)
from newshelf.serving.rules import ColumnKind, Condition, Rule, RuleSet
from newshelf.serving.search.base import IntArray, Mask

_Cells = Sequence[str | None] | NDArray[np.float64] | IntArray
_DAY_S, _HOUR_S = 86_400, 3_600
_DECIMALS = 9
"""Of a logarithm of a rank, so that 6 / 3 is 3 · 2 / 3."""
_MOST_CHOICES = 1000
"""Products of a pin that are tried in one answer."""
_POSTED = ("brand", "color", "material", "style", "availability")
"""Columns whose values are looked up as filters look them up."""


def further_columns(table: ItemTable) -> dict[str, ColumnKind]:
    """Return the kinds of an index's further columns, for ``read_rules``."""
    return {
        name: "number" if isinstance(column, np.ndarray) else "text"
        for name, column in table.extras.items()
    }


def matches(
    condition: Condition, table: ItemTable, now_s: float, kept: dict[Condition, Mask]
) -> Mask:
    """Return the products that a condition matches: ``(len(table),)``.

    Ages count from ``now_s``, seconds since 1970. ``kept`` has masks of conditions that do not
    vary; they are read and added.
    """
    if condition in kept:
        return kept[condition]
    parts = [matches(part, table, now_s, kept) for _, part in condition.parts]
    if condition.column is not None:
        mask = _tested(condition, condition.column, table, now_s)
    elif condition.negated is not None:
        mask = ~parts[0]
    else:
        mask = (np.logical_or if condition.some else np.logical_and).reduce(parts)
    if not condition.varies:
        kept[condition] = mask
    return mask


def _tested(condition: Condition, column: str, table: ItemTable, now_s: float) -> Mask:
    texts = [str(one) for one in condition.wanted]
    if column == "created_at":
        return _age_test(condition, table.created_at, now_s)
    if condition.below is not None:
        return in_categories(table, [condition.below])
    if texts and column == "id":
        rows, mask = table.rows(texts), np.zeros(len(table), dtype=np.bool_)
        mask[rows[rows >= 0]] = True
        return mask
    if texts and column in _POSTED:
        return with_values(table, column, texts)
    if column in table.extras or column in INDEX_COLUMNS:
        return _cell_test(condition, column, table.column(column))
    # A further column that this version of the index, or every product of a segment, lacks.
    return np.zeros(len(table), dtype=np.bool_)


def _age_test(condition: Condition, created_at: IntArray, now_s: float) -> Mask:
    if condition.newer_than_days is not None:
        return created_at > now_s - _DAY_S * condition.newer_than_days
    oldest = now_s - _DAY_S * (condition.older_than_days or 0)
    return (created_at > np.iinfo(np.int64).min) & (created_at <= oldest)


def _cell_test(condition: Condition, column: str, cells: _Cells) -> Mask:
    wanted, low, high = condition.wanted, condition.min, condition.max
    if isinstance(cells, np.ndarray):
        if low is None and high is None:
            return np.isin(cells, [one for one in wanted if not isinstance(one, str)])
        # NaN is in no range.
        above = cells >= (-np.inf if low is None else low)
        return above & (cells <= (np.inf if high is None else high))
    texts = TextColumn.of(cells)
    if condition.contains is not None:
        part = condition.contains.lower()
        found = [part in text.lower() for text in texts.texts]
    else:
        key = type_path if column == "product_type" else lambda text: text.strip().lower()
        keys = {key(str(one)) for one in wanted}
        found = [key(text) in keys for text in texts.texts]
    # The code of an absent cell is -1.
    return np.array([*found, False], dtype=np.bool_)[texts.codes]


class RuleMasks:
    """The products of one table that each rule matches, as bits."""

    def __init__(self, rules: Sequence[Rule], table: ItemTable) -> None:
        self.table = table
        """The same products, of the current popularity."""
        self._rules = rules
        self._varying = [at for at, rule in enumerate(rules) if rule.when.varies]
        self._kept: dict[Condition, Mask] = {}
        self._hour: int | None = None
        self._bits = np.zeros((len(table), -(-len(rules) // 8)), dtype=np.uint8)
        self._rows: dict[tuple[int, tuple[int, ...]], IntArray] = {}

    def bits(self, hour: int) -> NDArray[np.uint8]:
        """Return ``(len(table), ceil(rules / 8))`` of an hour; rule 0 is byte 0's highest bit."""
        first = self._hour is None
        changed: Sequence[int] = range(len(self._rules)) if first else self._varying
        if hour == self._hour or not changed:
            return self._bits
        bits = self._bits.copy()
        for at in changed:
            kept = self._kept if at in self._varying else {}
            mask = matches(self._rules[at].when, self.table, hour * _HOUR_S, kept)
            column, flag = bits[:, at // 8], np.uint8(128 >> at % 8)
            column[:] = np.where(mask, column | flag, column & ~flag)
        # Another thread sees the old bits or the new.
        self._bits, self._rows, self._hour = bits, {}, hour
        return bits

    def rows(self, rules: tuple[int, ...], hour: int) -> IntArray:
        """Return the rows that at least one of ``rules`` matches, in increasing order."""
        bits = self.bits(hour)
        # Without a rule that varies, all hours are alike.
        key = hour if self._varying else 0, rules
        found = self._rows.get(key)
        if found is None:
            chosen = np.zeros(len(self._rules), dtype=np.bool_)
            chosen[[*rules]] = True
            found = np.flatnonzero((bits & np.packbits(chosen)).any(axis=1))
            self._rows[key] = found
        return found


class CompiledRules:
    """A rule set and the products that it matches; what was equal ``before`` is kept."""

    def __init__(
        self, rules: RuleSet, tables: Sequence[ItemTable], before: "CompiledRules | None" = None
    ) -> None:
        self.rules = rules.rules
        old = before.masks if before is not None and before.rules == rules.rules else []
        # A change of popularity makes another table of the same ids.
        known = {id(one.table.id): one for one in old}
        self.masks: list[RuleMasks] = [
            known.get(id(one.id)) or RuleMasks(self.rules, one) for one in tables
        ]
        for masks, table in zip(self.masks, tables, strict=True):
            masks.table = table
        self._active: dict[tuple[int, tuple[int, ...]], ActiveRules] = {}
        for masks in self.masks:
            masks.bits(int(time.time()) // _HOUR_S)

    def positions(self, rule: int, now_s: float) -> IntArray:
        """Return the positions that a rule matches, wherever it applies."""
        return _positions(self.masks, (rule,), int(now_s) // _HOUR_S)

    def active(self, placement: str | None, now_s: float) -> "ActiveRules | None":
        """Return the rules for a placement and a time; None without any."""
        chosen = tuple(at for at, rule in enumerate(self.rules) if rule.applies(placement, now_s))
        if not chosen:
            return None
        key = int(now_s) // _HOUR_S, chosen
        found = self._active.get(key)
        if found is None:
            found = ActiveRules(self.rules, chosen, self.masks, key[0])
            kept = {old: one for old, one in self._active.items() if old[0] == key[0]}
            self._active = {**kept, key: found}
        return found


class Pin(NamedTuple):
    """A place in answers that a rule gives to one of its products."""

    place: int
    """From 0."""
    rule: int
    """Its place in the rule set."""
    positions: IntArray
    """Of its products, the most popular first."""


class ActiveRules:
    """The rules for one placement at one time, over positions of the candidates."""

    def __init__(
        self, rules: Sequence[Rule], chosen: Sequence[int], masks: Sequence[RuleMasks], hour: int
    ) -> None:
        self._rules, self._chosen, self._masks, self._hour = rules, chosen, masks, hour
        parts = [one.bits(hour) for one in masks]
        self._bits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        by_action = {
            action: [at for at in chosen if rules[at].action == action]
            for action in ("boost", "bury", "hide", "pin")
        }
        self._hiding = by_action["hide"]
        self._moving = by_action["boost"] + by_action["bury"]
        logs = np.log([rules[at].weight or 1.0 for at in self._moving])
        self._log_factors = np.where(np.arange(len(logs)) < len(by_action["boost"]), logs, -logs)
        self.hidden = self._positions(self._hiding)
        """Positions of the hidden products, in increasing order."""
        popularity = np.concatenate([one.table.popularity for one in masks])
        self._pins: list[Pin] = []
        for at in by_action["pin"]:
            positions = self._positions([at])
            popular_first = positions[np.argsort(-popularity[positions], kind="stable")]
            self._pins.append(Pin((rules[at].position or 1) - 1, at, popular_first))

    def with_inline(self, table: ItemTable) -> "ActiveRules":
        """Return the same rules for the products that a request brought along, too."""
        masks = [*self._masks, RuleMasks(self._rules, table)]
        return ActiveRules(self._rules, self._chosen, masks, self._hour)

    def hides(self, positions: IntArray) -> Mask:
        """``(len(positions),)``: True for what a rule hides."""
        hidden: Mask = np.logical_or.reduce(self._matched(positions, self._hiding), axis=1)
        return hidden

    @property
    def moves(self) -> bool:
        """True if products are boosted or buried."""
        return bool(self._moving)

    def pinned(
        self, answered: Sequence[int], allowed: Mask, k: int
    ) -> Iterator[tuple[int, str, Iterator[int]]]:
        """Yield place, rule, and the positions that may be there, those of the answer first."""
        best = np.array(answered, dtype=np.int64)
        for place, rule, positions in sorted(self._pins, key=lambda pin: pin.place):
            if place < k:
                first = best[self._matched(best, [rule])[:, 0]]
                others = positions[allowed[positions]][:_MOST_CHOICES]
                yield place, self._rules[rule].name, chain(first.tolist(), others.tolist())

    def places(self, scores: NDArray[np.float64], positions: IntArray) -> IntArray | None:
        """Return ``(C,)`` places, from 0, after boosts and buries; None if no product moves.

        With r the product's rank by score (higher is better, ties by position), from 1, products
        are ordered by r / Π w, over the weights w of its boosts and 1/w of its buries; of equals,
        the most boosted is first.
        """
        factors = self._matched(positions, self._moving).astype(np.float64) @ self._log_factors
        if not factors.any():
            return None
        ranks = np.empty(len(scores))
        ranks[np.lexsort((positions, -scores))] = np.arange(1, len(scores) + 1)
        places = np.empty(len(scores), dtype=np.int64)
        moved = (np.log(ranks) - factors).round(_DECIMALS)
        places[np.lexsort((ranks, -factors, moved))] = np.arange(len(scores))
        return places

    def names(self, positions: Sequence[int]) -> list[list[str]]:
        """Return for each position the rules that move it."""
        matched = self._matched(np.array(positions, dtype=np.int64), self._moving)
        return [
            [self._rules[self._moving[at]].name for at in np.flatnonzero(row)] for row in matched
        ]

    def _matched(self, positions: IntArray, rules: Sequence[int]) -> Mask:
        """``(len(positions), len(rules))``."""
        return np.unpackbits(self._bits[positions], axis=1)[:, rules].astype(np.bool_)

    def _positions(self, rules: Sequence[int]) -> IntArray:
        return _positions(self._masks, tuple(rules), self._hour)


def _positions(masks: Sequence[RuleMasks], rules: tuple[int, ...], hour: int) -> IntArray:
    """Return the positions that at least one of ``rules`` matches, in increasing order."""
    starts = accumulate((len(one.table) for one in masks), initial=0)
    parts = [start + one.rows(rules, hour) for start, one in zip(starts, masks, strict=False)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
