"""What robots, one in a hundred units, can do to a chosen product in retrained rankings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from export.index import popularity
from newshelf.catalog.interactions import Interactions, read_interactions
from newshelf.catalog.robots import DAY_S
from newshelf.config import BlendSettings, ScorerSettings, Settings
from newshelf.training.ranking import BlendRanker, train_ranking
from newshelf.training.run import Run
from tests.unit.evaluation.conftest import Tables

ITEMS, SHOPPERS, ROBOTS, DAYS, CHOSEN = 120, 300, 3, 40, 77
SETTINGS = ScorerSettings(
    width=8, epochs=2, max_steps=60, batch_size=64, blend=BlendSettings(links_per_item=60)
)
BOUNDED = SETTINGS.newcomer_days
COLUMNS = ["user_id", "item_id", "event_type", "timestamp"]


def embeddings() -> torch.Tensor:
    rng = np.random.default_rng(2)
    looks = rng.standard_normal((12, 24))[np.arange(ITEMS) // 10]
    return F.normalize(torch.tensor(looks + 0.3 * rng.standard_normal(looks.shape)).float(), dim=1)


EMBEDDINGS = embeddings()


def shoppers() -> pd.DataFrame:
    """Each likes two of twelve kinds of products and comes on three days."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(SHOPPERS):
        liked = rng.choice(12, 2, replace=False)
        for day in rng.choice(DAYS, 3, replace=False):
            for item in rng.choice(10, 1):
                at = int(day) * DAY_S + int(rng.integers(DAY_S))
                rows.append((f"u{number}", f"i{rng.choice(liked) * 10 + item}", "view", at))
    return pd.DataFrame(rows, columns=COLUMNS)


DAYS_OF = {
    "fast": range(0),
    "slow": range(DAYS - 10),
    "decoys": range(DAYS - 10),
    "one view": range(DAYS - 1, DAYS),
    "five days": range(DAYS - 10, DAYS, 2),
}
"""The last two behave as shoppers do; only the bound on newcomers sees them."""


def robots(kind: str) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    chosen, rows = f"i{CHOSEN}", []
    for number in range(ROBOTS):
        unit = f"robot-{number}"
        if kind == "fast":
            types = ("view", "click", "cart", "purchase")
            rows += [(unit, chosen, types[at % 4], at) for at in range(2000)]
        for day in DAYS_OF[kind]:
            rows.append((unit, chosen, "view", day * DAY_S + number))
            if kind in {"decoys", "five days"}:
                others = rng.integers(0, ITEMS, 2)
                rows += [(unit, f"i{item}", "view", day * DAY_S + 60) for item in others]
    return pd.DataFrame(rows, columns=COLUMNS)


def tables(*parts: pd.DataFrame) -> Tables:
    events = pd.concat(parts).sort_values("timestamp", kind="stable", ignore_index=True)
    return Tables(pd.DataFrame({"id": [f"i{number}" for number in range(ITEMS)]}), events)


def rank(interactions: Interactions, histories: list[np.ndarray], days: float) -> float:
    """Return the mean rank of the chosen product; shoppers are newcomers for ``days``."""
    scorer = SETTINGS.model_copy(update={"newcomer_days": days})
    alike = replace(interactions, weights=None)
    ranking = train_ranking(EMBEDDINGS, alike, scorer, Run(1, quiet=True))
    scores = BlendRanker(ranking, EMBEDDINGS).scores(histories)
    return float((scores > scores[:, [CHOSEN]]).sum(axis=1).mean())


@pytest.fixture(scope="module")
def clean() -> tuple[list[np.ndarray], dict[float, float]]:
    """Return histories without the chosen product, and its rank by days of a newcomer."""
    found = read_interactions(tables(shoppers()), Settings())
    histories = [one for one in found.sequences if CHOSEN not in one][:150]
    return histories, {days: rank(found, histories, days) for days in (0, BOUNDED)}


@pytest.mark.parametrize("kind", DAYS_OF)
def test_robots_do_not_lift_a_product(kind: str, clean) -> None:
    histories, before = clean
    attacked = tables(shoppers(), robots(kind))
    found = read_interactions(attacked, Settings())
    assert before[BOUNDED] - rank(found, histories, BOUNDED) <= 10
    if kind not in {"fast", "slow"}:
        unbounded = read_interactions(attacked) if kind == "decoys" else found
        assert before[0] - rank(unbounded, histories, 0) > 10


@pytest.mark.parametrize("kind", ["fast", "slow", "decoys"])
def test_robots_do_not_make_a_product_popular(kind: str) -> None:
    settings = Settings()
    bounds = settings.training.event_weights, settings.robots
    before = popularity(tables(shoppers()), *bounds)
    after = popularity(tables(shoppers(), robots(kind)), *bounds)
    assert (before > before[CHOSEN]).sum() - (after > after[CHOSEN]).sum() <= 10
    unbounded = popularity(tables(shoppers(), robots(kind)))
    assert unbounded.argmax() == CHOSEN
