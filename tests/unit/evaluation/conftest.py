"""A small catalogue and small splits, made by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from newshelf.catalog.interactions import Interactions, Sequences
from newshelf.evaluation.types import Case, Split

MakeSplit = Callable[..., Split]
DAY = 86_400


@dataclass
class Tables:
    """What the evaluation reads of a catalogue."""

    items: pd.DataFrame
    events: pd.DataFrame | None = None
    baskets: pd.DataFrame | None = None

    @property
    def item_index(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.items["id"])}


@pytest.fixture
def tables() -> type[Tables]:
    return Tables


@pytest.fixture
def make_split() -> MakeSplit:
    def make(
        train: list[list[int]],
        n_items: int,
        cases: list[tuple[list[int], list[int]]] | None = None,
        stamps: list[list[int]] | None = None,
        candidates: list[int] | None = None,
    ) -> Split:
        mask = np.ones(n_items, dtype=bool)
        if candidates is not None:
            mask = np.isin(np.arange(n_items), candidates)
        return Split(
            name="hand",
            train=Sequences(
                [np.array(row, dtype=np.int64) for row in train],
                None if stamps is None else [np.array(row) for row in stamps],
            ),
            cases=[
                Case(np.array(history, dtype=np.int64), np.array(truth, dtype=np.int64))
                for history, truth in cases or []
            ],
            candidates=mask,
            description="made by hand",
        )

    return make


@pytest.fixture
def shop() -> Tables:
    """60 items in two types, 80 users with up to 12 events over 1,000 days."""
    generator = np.random.default_rng(3)
    items = pd.DataFrame(
        {
            "id": [f"i{number}" for number in range(60)],
            "product_type": ["Home > Lamps"] * 40 + ["Clothing > Hats"] * 15 + [None] * 5,
        }
    )
    n = 900
    events = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in generator.integers(0, 80, n)],
            "item_id": [f"i{number}" for number in generator.integers(0, 58, n)],
            "event_type": "view",
            "timestamp": np.sort(generator.integers(0, 86_400_000, n)),
        }
    )
    return Tables(items, events)


def daily_shoppers(count: int = 60, items: int = 20, days: int = 10) -> Interactions:
    """Each takes one product a day; product 0 comes on the last day only."""
    rng = np.random.default_rng(0)
    sequences, stamps = [], []
    for shopper in range(count):
        sequence = rng.choice(np.arange(1, items), days, replace=False)
        sequence[-1] = 0 if shopper % 2 else sequence[-1]
        sequences.append(sequence.astype(np.int64))
        stamps.append(np.arange(days, dtype=np.int64) * DAY + shopper)
    return Interactions(sequences, stamps, n_items=items, groups=np.arange(count))
