"""Retail's purchases as the rows and the questions of a click model, cut at one moment."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from benchmarks.methods.ctr.fields import Vocabulary
from benchmarks.methods.ctr.impressions import Impressions, Negatives, positives
from benchmarks.transfer.context import Context
from newshelf.catalog import Catalog
from newshelf.errors import TrainingError
from newshelf.evaluation.interactions import Interactions, from_events, latest
from newshelf.evaluation.types import Case, IntArray, Split

__all__ = ["Shop", "labelled_rows", "read_shop", "time_case_split"]

_TEST_SHARE = 0.15
"""Of the events, the latest, when nothing was kept back."""


@dataclass(frozen=True, eq=False)
class Shop:
    """A catalogue with all its events, and the moment that parts training from test."""

    catalog: Catalog
    interactions: Interactions
    timestamps: list[IntArray]
    cut: int
    """Epoch seconds; the first of the test."""

    @property
    def day(self) -> str:
        """Of the cut."""
        return f"{datetime.fromtimestamp(self.cut, UTC):%d %B %Y}"

    def training(self) -> tuple[list[IntArray], list[IntArray]]:
        """Every sequence before the cut, possibly empty, and its times."""
        past = [times < self.cut for times in self.timestamps]
        return (
            [row[kept] for row, kept in zip(self.interactions.sequences, past, strict=True)],
            [row[kept] for row, kept in zip(self.timestamps, past, strict=True)],
        )


def read_shop(context: Context, name: str) -> Shop:
    """The data set; what was kept back of it is the test when it is there.

    Raises:
        TrainingError: it has no events.
    """
    catalog = context.catalog(name)
    events = catalog.events
    if events is None:
        raise TrainingError(f"{name} has no events")
    kept_back = context.kept_back_catalog(name)
    if kept_back is not None and kept_back.events is not None:
        cut = int(kept_back.events["timestamp"].min())
        items = pd.concat([catalog.items, kept_back.items]).drop_duplicates("id")
        events = pd.concat([events[events["timestamp"] < cut], kept_back.events])
        catalog = replace(catalog, items=items.reset_index(drop=True), events=events)
    else:
        cut = int(np.quantile(events["timestamp"], 1 - _TEST_SHARE, method="higher"))
    interactions = from_events(events, catalog.item_index)
    if interactions.timestamps is None:
        raise TrainingError(f"{name} has no events of known items")
    return Shop(catalog, interactions, interactions.timestamps, cut)


def time_case_split(shop: Shop, max_cases: int, seed: int) -> Split:
    """Train before the cut; asked for what users with a past came to after it for the first time.

    Args:
        shop: see there.
        max_cases: cases beyond it are left out at random: a click model scores every pair anew.
        seed: of that choice.
    """
    train, times = shop.training()
    cases = []
    for past, whole in zip(train, shop.interactions.sequences, strict=True):
        relevant = np.setdiff1d(whole[len(past) :], past)
        if len(past) and len(relevant):
            cases.append(Case(latest(past), relevant))
    chosen = np.random.default_rng(seed).permutation(len(cases))[:max_cases]
    return Split(
        name="time",
        train=[row for row in train if len(row)],
        train_timestamps=[row for row in times if len(row)],
        cases=[cases[number] for number in np.sort(chosen)],
        candidates=np.ones(shop.interactions.n_items, dtype=np.bool_),
        description=f"events before {shop.day}, asked for what came after",
    )


def labelled_rows(
    shop: Shop, train_rows: int, test_rows: int, max_history: int, seed: int
) -> tuple[Impressions, Impressions, int]:
    """First purchases with label 1, each beside a sampled item that the user did not take.

    A row's history is what came before it, after the cut too; the model learns from nothing
    after it. Users and items that first came after the cut are unknown to it.

    Returns:
        Training rows, test rows, and the size of the users' vocabulary.
    """
    train, _ = shop.training()
    names = [f"u{number}" for number in range(len(train))]
    known = Vocabulary(name for name, row in zip(names, train, strict=True) if len(row))
    sequences = shop.interactions.sequences
    every = positives(sequences, shop.timestamps, max_history, known.rows(names))
    rng = np.random.default_rng(seed)
    n_items = shop.interactions.n_items
    past = every.timestamp < shop.cut
    parts = []
    for taken, kept, count in ((train, past, train_rows), (sequences, ~past, test_rows)):
        rows = rng.permutation(np.flatnonzero(kept))[: count // 2]
        parts.append(Negatives(taken, n_items).labelled(every.take(rows), 1, rng))
    return parts[0], parts[1], known.size
