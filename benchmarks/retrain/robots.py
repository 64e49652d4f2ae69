"""Robots that act as shoppers: by how many positions they lift a product in retrained rankings.

Quarantine and daily cap are on, and see nothing unusual in them. Compared are trainings without and
with the bound on newcomers (``newshelf.training.signals.bound_newcomers``).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from benchmarks.records import Values
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.transfer.command import TransferContext
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import Interactions, Sequences, read_interactions
from newshelf.catalog.report import CatalogReport
from newshelf.catalog.robots import DAY_S
from newshelf.config import ScorerSettings, Settings
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.splits import time_split
from newshelf.training.ranking import BlendRanker, train_ranking
from newshelf.training.run import Run

_ITEMS, _KINDS, _SHOPPERS, _DAYS = 1300, 65, 1100, 60
_EACH = _ITEMS // _KINDS
_SHARE = 0.01
"""Robots, as a share of the shoppers."""
_ASKED = 300
_SCORER = ScorerSettings(width=64, epochs=4, max_steps=160, batch_size=128)
_SETTINGS = Settings()
BOUNDS = {"no bound": 0.0, "newcomers bounded": _SCORER.newcomer_days}
"""Days of a newcomer."""
ATTACKS = {
    "one view": "view it once on the last day",
    "among others": "view it on the last day among two other products",
    "five days": "the same on every second of the last ten days",
    "known": "the same on the last day, and other products three weeks before",
}


@dataclass(frozen=True)
class Shop:
    """Products, and what shoppers do with them."""

    catalog: Catalog
    embeddings: torch.Tensor
    """``(N, D)`` float32 of unit length."""
    events: pd.DataFrame
    event_type: str

    def attacked(self, attack: str, chosen: str, seed: int) -> pd.DataFrame:
        """Return the events with those of robots that lift a product."""
        random, rows = np.random.default_rng(seed), list[tuple[str, str, str, int]]()
        last = int(self.events["timestamp"].max()) // DAY_S
        ids = self.catalog.items["id"].to_numpy()
        for number in range(round(_SHARE * self.events["user_id"].nunique())):

            def add(day: int, item: str, second: int, unit: str = f"robot{number}") -> None:
                rows.append((unit, item, self.event_type, day * DAY_S + second))

            for back in range(8, -1, -2) if attack == "five days" else [0]:
                add(last - back, chosen, number * 600)
                if attack != "one view":
                    for item in random.choice(ids, 2):
                        add(last - back, item, number * 600 - 60)
            if attack == "known":
                for item in random.choice(ids, 2):
                    add(last - 21, item, number * 600)
        robots = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])
        return pd.concat([self.events, robots])

    def interactions(self, events: pd.DataFrame) -> Interactions:
        """Return what training reads of the events."""
        events = events.sort_values("timestamp", kind="stable", ignore_index=True)
        catalog = Catalog(Path(), "robots", self.catalog.items, events, None, self.catalog.report)
        return read_interactions(catalog, _SETTINGS)

    def medium(self, count: int, seed: int) -> list[str]:
        """Draw products of medium popularity among those with events."""
        counts = self.events["item_id"].value_counts()
        among = sorted(counts.index[counts == int(counts.median())])
        return list(np.random.default_rng(seed).permutation(among)[:count])


def made_up(seed: int) -> Shop:
    """Draw a shop whose shoppers like three kinds of products each."""
    random = np.random.default_rng(seed)
    popular = random.permutation(1 / np.arange(1, _ITEMS + 1) ** 0.7)
    rows = []
    for number in range(_SHOPPERS):
        liked = random.choice(_KINDS, 3, replace=False)
        for day in np.sort(random.choice(_DAYS, random.integers(1, 6), replace=False)):
            for _ in range(random.integers(1, 7)):
                first = int(random.choice(liked)) * _EACH
                weights = popular[first : first + _EACH]
                item = first + random.choice(_EACH, p=weights / weights.sum())
                at = int(day) * DAY_S + int(random.integers(DAY_S))
                rows.append((f"u{number}", f"i{item}", "view", at))
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])
    looks = random.standard_normal((_KINDS, 64))[np.arange(_ITEMS) // _EACH]
    noisy = torch.tensor(looks + 0.6 * random.standard_normal(looks.shape)).float()
    items = pd.DataFrame({"id": [f"i{number}" for number in range(_ITEMS)]})
    catalog = Catalog(Path(), "robots", items, events, None, CatalogReport())
    return Shop(catalog, F.normalize(noisy, dim=1), events, "view")


def retail(context: TransferContext) -> Shop:
    """Return the purchases of ``retail``; its products are texts."""
    catalog = context.catalog("retail")
    content = context.backbone(catalog).table.content()
    vectors = F.normalize(torch.as_tensor(content).float(), dim=1)
    if catalog.events is None:
        raise ValueError("retail has no events")
    columns = ["user_id", "item_id", "event_type", "timestamp"]
    return Shop(catalog, vectors, catalog.events[columns], "purchase")


def trained(shop: Shop, data: Sequences, days: float, seed: int) -> BlendRanker:
    """Return a short training's ranking; shoppers are newcomers for ``days``."""
    scorer = _SCORER.model_copy(update={"newcomer_days": days})
    ranking = train_ranking(shop.embeddings, data, scorer, Run(seed, quiet=True))
    return BlendRanker(ranking, shop.embeddings)


def lifts(shop: Shop, days: float, chosen: str, seed: int) -> Values:
    """Return by how many positions a product is lifted, by attack."""
    clean, row = shop.interactions(shop.events), shop.catalog.item_index[chosen]
    asked = [one for one in clean.sequences if row not in one][:_ASKED]

    def place(found: Interactions) -> float:
        scores = trained(shop, found, days, seed).scores(asked)
        return float((scores > scores[:, [row]]).sum(axis=1).mean())

    before = place(clean)
    attacks = {name: shop.attacked(name, chosen, seed) for name in ATTACKS}
    return {name: before - place(shop.interactions(of)) for name, of in attacks.items()}


def honest(shop: Shop, days: float, seed: int) -> Values:
    """Return the NDCG of the shop without robots, on its newest fifth."""
    split = time_split(shop.interactions(shop.events), 0.2)
    return {
        "ndcg": evaluate(trained(shop, split.train, days, seed), split, (10,)).values["NDCG@10"]
    }


def run(context: TransferContext) -> TaskResult:
    """Attack products of a made-up shop."""
    return _attacked(
        context,
        "robots",
        4,
        f"A made-up shop: {_ITEMS:,} products of {_KINDS} kinds, {_SHOPPERS:,} shoppers with "
        f"11,000 views in {_DAYS} days.",
    )


def run_retail(context: TransferContext) -> TaskResult:
    """Attack products of a real shop."""
    return _attacked(
        context,
        "robots-retail",
        2,
        "The catalogue `retail`: 3,749 products, 308,078 purchases of 3,970 customers in eleven "
        "months. Products are embedded by the packaged text tower as it is.",
    )


def _attacked(context: TransferContext, task: str, products: int, about: str) -> TaskResult:
    torch.set_num_threads(1)
    found: dict[str, list[Values]] = {bound: [] for bound in BOUNDS}
    for seed in context.seeds:
        shop = made_up(seed) if task == "robots" else retail(context)
        for bound, days in BOUNDS.items():
            context.console.print(f"{task}, seed {seed}, {bound}")
            name = f"{task}-{bound.replace(' ', '-')}"
            values = context.measured(name, seed, partial(honest, shop, days, seed))
            parts = [
                context.measured(f"{name}-{chosen}", seed, partial(lifts, shop, days, chosen, seed))
                for chosen in shop.medium(products, seed)
            ]
            means = {key: float(np.mean([part[key] for part in parts])) for key in ATTACKS}
            found[bound].append(values | means)
    attacks = [f"positions lifted, {attack}" for attack in ATTACKS]
    names = dict(zip([*ATTACKS, "ndcg"], [*attacks, "NDCG@10 without robots"], strict=True))
    return TaskResult(
        task=task,
        title=f"Robots that act as shoppers: {'a made-up shop' if task == 'robots' else 'retail'}",
        protocol=(
            f"{about} Robots, {_SHARE:.0%} of the shoppers, lift a product of medium popularity; "
            f"measured is the mean number of positions for {_ASKED} shoppers who do not have it, "
            f"and for {products} such products in turn. They "
            + "; ".join(f"{words} (*{attack}*)" for attack, words in ATTACKS.items())
            + ". Cap and [quarantine](../event-store.md#robots) are on, and see nothing unusual. "
            "The NDCG is that of the newest fifth of the shop without robots. The training is "
            f"short ({_SCORER.max_steps} steps)."
        ),
        rows=[
            Row(name, bound, [seed[key] for seed in seeds], days == 0)
            for key, name in names.items()
            for (bound, seeds), days in zip(found.items(), BOUNDS.values(), strict=True)
        ],
        goals=[Goal(name, 10.0) for name in attacks],
        percent=False,
        lower_is_better=attacks,
    )
