"""Retraining on clicks that depend on positions: nearer to the truth with weights by position."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from export.index import popularity
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.config import RetrainSettings, Settings
from newshelf.files import read_json
from newshelf.gateway.recommend import RankedResponse, explored
from newshelf.pipeline.merged_catalog import COUNTS, write_merged
from newshelf.store.records import Exposure, Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
ITEMS, SHOWN, ANSWERS = 24, 10, 3000
TRUTH = np.random.default_rng(1).permutation(np.linspace(0.1, 0.9, ITEMS))
"""Probability of a click on each product that is looked at."""
SERVED = np.argsort(np.random.default_rng(2).random(ITEMS))
"""The served order, which has nothing to do with it."""
NO_CORRECTION = Settings(retrain=RetrainSettings(most_position_weight=1))


@pytest.fixture
def shop(tmp_path: Path) -> Catalog:
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [(f"i{at}", f"Product {at}") for at in range(ITEMS)]
    pd.DataFrame(rows, columns=["id", "title"]).to_parquet(folder / "items.parquet")
    return read_catalog(folder)


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with EventStore.open(store_url) as opened:
        yield opened


def serve(store: EventStore, share: float, *, biased: bool = True, answers: int = ANSWERS) -> None:
    """Show ten of the products in the served order to each unit, and store the clicks."""
    random = np.random.default_rng(3)
    exposures, clicks = [], []
    for at in range(answers):
        among = SERVED[np.sort(random.choice(ITEMS, SHOWN, replace=False))]
        items = [{"id": f"i{item}", "score": 0.0, "source": "model"} for item in among]
        answer = explored(RankedResponse(items, "v", "i"), share, f"r{at}")
        chances = answer.propensities or [1.0] * SHOWN
        shown = [
            {"item_id": item["id"], "position": place, "score": 0, "source": "model",
             "propensity": 0.4 * chance}
            for place, (item, chance) in enumerate(zip(answer.items, chances, strict=True), 1)
        ]  # fmt: skip
        exposures.append(
            Exposure.model_validate(
                {"request_id": f"r{at}", "unit": f"u{at % 700}", "at": BEGIN, "variant": "control",
                 "model_version": "v", "index_version": "i", "latency_ms": 1, "items": shown}
            )
        )  # fmt: skip
        for place, item in enumerate(answer.items, 1):
            looked = 1 / np.log2(1 + place) if biased else 0.5
            if random.random() < looked * TRUTH[int(item["id"][1:])]:
                clicks.append(
                    Feedback(
                        event_id=f"{at}-{place}",
                        event_type="click",
                        item_id=item["id"],
                        at=BEGIN + timedelta(days=at % 30, seconds=place),
                        request_id=f"r{at}",
                    )
                )
    store.write(WriteBatch(exposures=exposures))
    store.write(WriteBatch(feedback=clicks))


def learned(shop: Catalog, store: EventStore, out: Path, settings: Settings) -> np.ndarray:
    write_merged(shop, store, out, settings)
    return popularity(read_catalog(out, strict=True))


def test_popularity_is_nearer_to_the_truth(
    shop: Catalog, store: EventStore, tmp_path: Path
) -> None:
    serve(store, 0.5)
    plain = learned(shop, store, tmp_path / "plain", NO_CORRECTION)
    corrected = learned(shop, store, tmp_path / "corrected", Settings())
    (note,) = read_json(tmp_path / "corrected" / COUNTS)["notes"]
    assert "placement default: corrected for position" in note
    assert read_json(tmp_path / "plain" / COUNTS)["notes"] == []
    ranks = [spearmanr(TRUTH, one).statistic for one in (plain, corrected)]
    assert ranks[1] > ranks[0] + 0.02
    errors = [np.abs(one / one.sum() - TRUTH / TRUTH.sum()).sum() for one in (plain, corrected)]
    assert errors[1] < 0.6 * errors[0]
    # Events together count as before.
    assert corrected.sum() == pytest.approx(plain.sum())
    # A retraining on events that were exported with their ids corrects them too.
    again = learned(read_catalog(tmp_path / "plain"), store, tmp_path / "again", Settings())
    assert again.tolist() == pytest.approx(corrected.tolist())


@pytest.mark.parametrize(
    ("share", "biased", "told"), [(0.0, True, "too few"), (0.5, False, "no bias")]
)
def test_without_evidence_nothing_is_corrected_and_the_reason_is_told(
    shop: Catalog, store: EventStore, tmp_path: Path, share: float, biased: bool, told: str
) -> None:
    serve(store, share, biased=biased, answers=800)
    corrected = learned(shop, store, tmp_path / "merged", Settings())
    plain = learned(shop, store, tmp_path / "plain", NO_CORRECTION)
    assert corrected.tolist() == plain.tolist()
    (note,) = read_json(tmp_path / "merged" / COUNTS)["notes"]
    assert "not corrected" in note
    assert told in note
