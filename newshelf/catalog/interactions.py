"""Interactions of a catalogue as sequences of item indices, from events or baskets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.robots import counted_events
from newshelf.catalog.schema import EventType
from newshelf.config import EventWeights, Settings
from newshelf.errors import TrainingError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

WEIGHT = "weight"
"""Column of the events that multiplies the weights of their types."""
TYPE_BITS = {str(kind): 1 << place for place, kind in enumerate(EventType)}


@dataclass(frozen=True, eq=False)
class Sequences:
    """Histories of users, or baskets without order, to learn from."""

    sequences: Sequence[IntArray]
    """Item indices, of one user each, oldest first, or of one basket, distinct; not empty."""
    timestamps: Sequence[IntArray] | None = None
    """Epoch seconds, ascending, parallel to ``sequences``; None for baskets."""
    weights: Sequence[FloatArray] | None = None
    """Above 0, with a mean of 1, parallel to ``sequences``; None if all are equal."""

    def __post_init__(self) -> None:
        stamps = self.sequences if self.timestamps is None else self.timestamps
        if [*map(len, self.sequences)] != [*map(len, stamps)]:
            raise ValueError("sequences and timestamps differ in length")

    @property
    def items(self) -> IntArray:
        """Return the items of all sequences, one after another."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self.sequences])


@dataclass(frozen=True, eq=False, kw_only=True)
class Interactions(Sequences):
    """Histories or baskets of a catalogue."""

    n_items: int
    groups: IntArray
    """(len(sequences),) group numbers; splits keep the sequences of one group together."""
    types: Sequence[IntArray] | None = None
    """Types of the events of each interaction, as ``TYPE_BITS``; None for baskets."""


def read_interactions(catalog: Catalog, settings: Settings | None = None) -> Interactions:
    """Return the catalogue's events, or its baskets if it has no events.

    Without ``settings``, all events count, and alike.
    """
    if catalog.events is not None and len(catalog.events):
        index = catalog.item_index
        if settings is None:
            return from_events(catalog.events, index)
        events = counted_events(catalog.events, settings.robots)
        return from_events(events, index, settings.training.event_weights)
    baskets = basket_interactions(catalog)
    if baskets is not None:
        return baskets
    raise TrainingError(
        "the catalogue has no events and no baskets, so there is nothing to learn from or to "
        "evaluate on: add an events or a baskets table"
    )


def basket_interactions(catalog: Catalog) -> Interactions | None:
    """Return the catalogue's baskets, or None."""
    if catalog.baskets is None or not len(catalog.baskets):
        return None
    return from_baskets(catalog.baskets, catalog.item_index)


def from_events(
    events: pd.DataFrame, item_index: Mapping[str, int], weights: EventWeights | None = None
) -> Interactions:
    """Return one sequence per user in the order of time, of all types with a weight.

    Repeats of an item in a row (a view, then a purchase) count once, at the first time and with
    the largest weight.
    """
    weight = event_weights(events, weights)
    events, weight = events[weight > 0], weight[weight > 0]
    item, known = _positions(events["item_id"], item_index)
    stamps = events["timestamp"].to_numpy(dtype=np.int64)[known]
    users, _ = pd.factorize(events["user_id"].to_numpy()[known])
    order = np.lexsort((np.arange(len(item)), stamps, users))
    users, item, stamps, weight = users[order], item[order], stamps[order], weight[known][order]
    types = events["event_type"].astype(str).map(TYPE_BITS).to_numpy(dtype=np.int64)[known][order]
    begins = np.ones(len(item), dtype=np.bool_)
    begins[1:] = (users[1:] != users[:-1]) | (item[1:] != item[:-1])
    first = np.flatnonzero(begins)
    users = users[first]
    weight, types = np.maximum.reduceat(weight, first), np.bitwise_or.reduceat(types, first)
    sequences = _runs(item[first], users)
    return Interactions(
        n_items=len(item_index),
        sequences=sequences,
        timestamps=_runs(stamps[first], users),
        groups=np.arange(len(sequences), dtype=np.int64),
        weights=_runs(weight / weight.mean(), users) if len(np.unique(weight)) > 1 else None,
        types=_runs(types, users),
    )


def event_weights(events: pd.DataFrame, weights: EventWeights | None) -> FloatArray:
    """Return ``(events,)``: each type's weight, times the column ``weight`` if there is one."""
    of_type = {kind: 1.0 if weights is None else getattr(weights, kind) for kind in TYPE_BITS}
    weight: FloatArray = events["event_type"].astype(str).map(of_type).to_numpy(dtype=np.float32)
    if WEIGHT in events:
        given = pd.to_numeric(events[WEIGHT], errors="coerce").fillna(1.0)
        weight *= given.clip(lower=0).to_numpy(dtype=np.float32)
    return weight


def from_baskets(baskets: pd.DataFrame, item_index: Mapping[str, int]) -> Interactions:
    """Return one sequence per basket, grouped by ``scene_id`` if the table has it.

    Pictures of one scene show the same items, so a split between them would leak.
    """
    item, known = _positions(baskets["item_id"], item_index)
    frame = pd.DataFrame({"basket": baskets["basket_id"].to_numpy()[known], "item": item})
    frame["group"] = frame["basket"].map(lambda value: ("basket", value))
    if "scene_id" in baskets.columns:
        scene = pd.Series(baskets["scene_id"].to_numpy()[known])
        named = scene.notna()
        frame.loc[named, "group"] = scene[named].map(lambda value: ("scene", value))
    frame = frame.drop_duplicates(["basket", "item"])
    codes, _ = pd.factorize(frame["basket"])
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    groups, _ = pd.factorize(frame["group"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return Interactions(
        n_items=len(item_index),
        sequences=_runs(frame["item"].to_numpy(dtype=np.int64)[order], codes),
        groups=groups[order][starts].astype(np.int64),
    )


def latest(sequence: IntArray) -> IntArray:
    """Return each item once, at its last place: ``[3, 5, 3]`` → ``[5, 3]``."""
    _, places = np.unique(sequence[::-1], return_index=True)
    return sequence[::-1][np.sort(places)][::-1].copy()


def _positions(
    identifiers: "pd.Series[str]", item_index: Mapping[str, int]
) -> tuple[IntArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Return the rows of the known identifiers, and a mask of these."""
    rows = identifiers.map(item_index)
    known = rows.notna().to_numpy()
    return rows[known].to_numpy(dtype=np.int64), known


def _runs(values: npt.NDArray[Any], codes: IntArray) -> list[npt.NDArray[Any]]:
    """Split ``values`` where the grouped ``codes`` change."""
    if len(values) == 0:
        return []
    return list(np.split(values, np.flatnonzero(np.diff(codes)) + 1))
