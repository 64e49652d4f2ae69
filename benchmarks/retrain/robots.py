"""Robots that act as shoppers, and weights that could bound them.

``python -m benchmarks.retrain.robots`` measures by how many of 1,300 positions twelve robots, 1 %
of the shoppers, lift a product of medium popularity for shoppers who do not know it. Quarantine and
daily cap are on; each bound is a weight of the training events.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import Interactions, read_interactions
from newshelf.catalog.report import CatalogReport
from newshelf.catalog.robots import DAY_S
from newshelf.config import ScorerSettings, Settings
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.splits import time_split
from newshelf.training.ranking import BlendRanker, train_ranking
from newshelf.training.run import Run

_ITEMS, _KINDS, _SHOPPERS, _ROBOTS, _DAYS = 1300, 65, 1100, 12, 60
_EACH = _ITEMS // _KINDS
_ASKED = 300
_LEAST_PER_WEEK, _GROWTH, _HISTORY = 3, 2, 2
_SETTINGS = ScorerSettings(width=64, epochs=4, max_steps=160, batch_size=128)
_COLUMNS = ["user_id", "item_id", "event_type", "timestamp"]
_Row = tuple[str, str, str, int]


def shoppers() -> pd.DataFrame:
    """Return the events of shoppers who like three kinds of products each."""
    popular = np.random.default_rng(2).permutation(1 / np.arange(1, _ITEMS + 1) ** 0.7)
    random, rows = np.random.default_rng(3), []
    for number in range(_SHOPPERS):
        liked = random.choice(_KINDS, 3, replace=False)
        for day in np.sort(random.choice(_DAYS, random.integers(1, 6), replace=False)):
            for _ in range(random.integers(1, 7)):
                first = int(random.choice(liked)) * _EACH
                weights = popular[first : first + _EACH]
                item = first + random.choice(_EACH, p=weights / weights.sum())
                at = int(day) * DAY_S + int(random.integers(DAY_S))
                rows.append((f"u{number}", f"i{item}", "view", at))
    return pd.DataFrame(rows, columns=_COLUMNS)


def robots(kind: str, chosen: str) -> pd.DataFrame:
    """Return events of robots: one view each, one among two others, or the same on five days."""
    random, rows = np.random.default_rng(4), list[_Row]()
    days = range(_DAYS - 10, _DAYS, 2) if kind == "five days" else [_DAYS - 1]
    for number in range(_ROBOTS):
        for day in days:
            at = day * DAY_S + number * 600
            rows.append((f"robot{number}", chosen, "view", at))
            if kind != "one view":
                others = random.integers(0, _ITEMS, 2)
                rows += [(f"robot{number}", f"i{item}", "view", at - 60) for item in others]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _once(events: pd.DataFrame) -> "pd.Series[float]":
    """A unit's events with a product count as one together."""
    return 1 / events.groupby(["user_id", "item_id"])["timestamp"].transform("size")


def _history(events: pd.DataFrame) -> "pd.Series[float]":
    """An event counts n / (n + 2), for a unit with n other products."""
    others = events.groupby("user_id")["item_id"].transform("nunique") - 1
    return others / (others + _HISTORY)


def _growth(events: pd.DataFrame) -> "pd.Series[float]":
    """A product's events of a week count at most twice the mean of its other weeks, or three."""
    week = events["timestamp"] // (7 * DAY_S)
    now = events.groupby(["item_id", week])["user_id"].transform("size")
    others = events.groupby("item_id")["user_id"].transform("size") - now
    limit = np.maximum(_LEAST_PER_WEEK, _GROWTH * others / (week.nunique() - 1))
    return (limit / now).clip(upper=1)


def _newcomers(events: pd.DataFrame) -> "pd.Series[float]":
    """A product's events of units seen on one day count at most their share of all events."""
    days = (events["timestamp"] // DAY_S).groupby(events["user_id"]).transform("nunique")
    new = days <= 1
    news, known = (one.groupby(events["item_id"]).transform("sum") for one in (new, ~new))
    limit = np.maximum(1, new.sum() / (~new).sum() * known)
    return (limit / news.clip(lower=1)).clip(upper=1).where(new, 1.0)


BOUNDS: dict[str, Callable[[pd.DataFrame], "pd.Series[float]"]] = {
    "none": lambda events: pd.Series(1.0, events.index),
    "history of the unit": _history,
    "a unit's product once": _once,
    "growth of a product": _growth,
    "share of newcomers": _newcomers,
    "share of newcomers, once": lambda events: _newcomers(events) * _once(events),
}


def interactions(events: pd.DataFrame, bound: str) -> Interactions:
    """Return what training reads of the events, weighed by a bound."""
    events = events.sort_values("timestamp", kind="stable", ignore_index=True)
    items = pd.DataFrame({"id": [f"i{number}" for number in range(_ITEMS)]})
    weighed = events.assign(weight=BOUNDS[bound](events))
    catalog = Catalog(Path(), "robots", items, weighed, None, CatalogReport())
    return read_interactions(catalog, Settings())


def main(bounds: list[str]) -> None:
    """Print a row of the table for each bound."""
    torch.set_num_threads(1)
    random = np.random.default_rng(2)
    looks = random.standard_normal((_KINDS, 64))[np.arange(_ITEMS) // _EACH]
    noisy = torch.tensor(looks + 0.6 * random.standard_normal(looks.shape)).float()
    embeddings, run = F.normalize(noisy, dim=1), Run(1, quiet=True)
    clean = shoppers()
    counts = clean["item_id"].value_counts()
    chosen = str(counts[counts == int(counts.median())].index[0])
    row = int(chosen[1:])

    def ranker(found: Interactions) -> BlendRanker:
        return BlendRanker(train_ranking(embeddings, found, _SETTINGS, run), embeddings)

    def place(found: Interactions) -> float:
        scores = ranker(found).scores(asked)
        return float((scores > scores[:, [row]]).sum(axis=1).mean())

    for bound in bounds:
        found = interactions(clean, bound)
        asked = [one for one in found.sequences if row not in one][:_ASKED]
        before, lifts = place(found), []
        for kind in ("one view", "among others", "five days"):
            after = interactions(pd.concat([clean, robots(kind, chosen)]), bound)
            lifts.append(f"{before - place(after):.0f}")
        split = time_split(found, 0.2)
        trained = train_ranking(embeddings, split.train, _SETTINGS, run)
        ndcg = evaluate(BlendRanker(trained, embeddings), split, (10,)).values["NDCG@10"]
        print(f"| {bound} | {' | '.join(lifts)} | {ndcg:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [*BOUNDS])
