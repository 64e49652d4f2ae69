"""Drift of a small service: a real index, archive and store."""

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from newshelf.config import Settings
from newshelf.errors import SetupError
from newshelf.files import write_json
from newshelf.pipeline.drift import (
    DriftReport,
    Measure,
    calibration_error,
    compare_values,
    drift_report,
    mmd,
    psi,
    write_drift,
)
from newshelf.pipeline.workspace import Workspace
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.store.items import EncodedItem, ItemColumns, ItemWrite
from newshelf.store.records import ExposedItem, Exposure, Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.export.tiny_checkpoint import tiny_spec, tokenizer_json

VERSION = "abc123"
SETTINGS = Settings.model_validate({"drift": {"items": 60, "shown": 500}})
COLORS = ("green", "red", "gold")


def product(rng: np.random.Generator, number: int, kind: str = "Rings") -> dict[str, object]:
    return {
        "id": f"p{number}",
        "title": "jade ring" if kind == "Rings" else "linen shirt",
        "product_type": f"Shop > {kind if rng.random() < 0.8 else 'Lamps'}",
        "color": str(rng.choice(COLORS)),
        "price": round(float(rng.lognormal(3, 0.5)), 2),
    }


def vectors(rng: np.random.Generator, count: int, centre: float = 0.0) -> np.ndarray:
    rows = rng.normal(size=(count, 16))
    rows[:, 0] += centre
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a version that was trained on 300 products."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    items = pd.DataFrame([product(rng, number) for number in range(300)])
    empty = {name: None for name in INDEX_COLUMNS if name not in items}
    write_index(
        folder / "index",
        encoder_version=VERSION,
        items=items.assign(**empty)[list(INDEX_COLUMNS)].assign(popularity=0.0),
        embeddings=vectors(rng, 300),
        vectors=None,
    )
    spec = tiny_spec(image=False, scorer=False)
    write_json(folder / "model.json", spec.model_dump(mode="json"))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    counts = {"items": 300, "without_picture": 15, "texts": 300, "unreadable_texts": 0}
    write_json(folder / "model-card.json", {"data": counts})
    path = folder / f"recommender-{VERSION}.mar"
    with ZipFile(path, "w") as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file != path:
                packed.write(file, file.relative_to(folder))
    return path


@pytest.fixture
def workspace(tmp_path: Path, archive: Path) -> Workspace:
    made = Workspace(tmp_path / "w", tmp_path / "shop", is_sample=False, model_store=archive.parent)
    names = [str(archive), str(archive.with_name("encoder-abc123.mar"))]
    write_json(made.archive / "archives.json", names)
    return made


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with EventStore.open(store_url) as opened:
        yield opened


Shop = Callable[..., None]


@pytest.fixture
def shop(store: EventStore) -> Shop:
    """Stores changed products with their vectors."""

    def change(seed: int, count: int = 100, kind: str = "Rings", centre: float = 0.0,
               picture: float = 0.95, **columns: object) -> None:  # fmt: skip
        rng = np.random.default_rng(1000 + seed)
        writes = [
            ItemWrite(
                ItemColumns.model_validate({**product(rng, 1000 + number, kind), **columns}),
                b"picture" if rng.random() < picture else None,
            )
            for number in range(count)
        ]
        stored = store.items.put(writes)
        rows = vectors(rng, count, centre)
        store.items.put_encoded(
            VERSION,
            [
                EncodedItem(item.id, item.revision, item.seq, "", row, None)
                for item, row in zip(stored, rows, strict=True)
            ],
        )

    return change


def answer_all(
    store: EventStore, now: datetime, seed: int, *, share: float = 0.3,
    items: Sequence[str] = tuple(f"p{number}" for number in range(100)), days: int = 7,
    fallback: float = 0.02,
) -> None:  # fmt: skip
    """Store 200 answers in each period of ``days``.

    In the last one, ``items`` may be shown, and ``share`` of them are clicked.
    """
    rng = np.random.default_rng(seed)
    known = [f"p{number}" for number in range(100)]
    exposures, events = [], []
    numbers = itertools.count()
    for period in range(2):
        for shopper in range(100):
            for _ in range(2):
                at = now - timedelta(days=days * (2 - period) * (0.99 if period else 0.9))
                at += timedelta(minutes=int(rng.integers(60)))
                shown = rng.choice(np.array(items if period else known), 5, replace=False)
                scores = rng.normal(size=5)
                request = f"r{next(numbers)}"
                exposures.append(
                    Exposure(
                        request_id=request, unit=f"s{shopper}", at=at, model_version=VERSION,
                        index_version="1", latency_ms=1,
                        fallback=bool(rng.random() < (fallback if period else 0.02)),
                        items=tuple(
                            ExposedItem(item_id=str(item), position=place, score=float(score),
                                        source="model", propensity=1)
                            for place, (item, score)
                            in enumerate(zip(shown, scores, strict=True), 1)
                        ),
                    )
                )  # fmt: skip
                rate = (share if period else 0.3) * 2 / (1 + np.exp(-scores))
                events += [
                    Feedback(event_id=f"{request}-{item}", event_type="click", item_id=str(item),
                             at=at, request_id=request)
                    for item in shown[rng.random(5) < rate]
                ]  # fmt: skip
    store.write(WriteBatch(exposures=exposures, feedback=events))


def measured(report: DriftReport) -> dict[str, Measure]:
    return {one.name: one for one in report.measures}


def test_without_a_change_nothing_triggers(
    workspace: Workspace, store: EventStore, shop: Shop
) -> None:
    now = datetime.now(UTC)
    shop(0)
    answer_all(store, now, 0)
    report = drift_report(workspace, SETTINGS, store, now=now + timedelta(seconds=5))
    found = measured(report)
    assert report.triggers == ()
    assert report.known == len(report.measures) == 10
    assert found["price"].size is not None
    assert found["no_picture"].before == "5.0%"
    assert "No drift." in report.verdict


@pytest.mark.parametrize(
    ("change", "triggers"),
    [
        ({"kind": "Shirts", "centre": 3.0}, ("embeddings", "product_type")),
        ({"price": 500.0}, ("price",)),
        ({"picture": 0.5}, ("no_picture",)),
        ({"title": "ทดสอบ"}, ("unreadable_text",)),
    ],
)
def test_shifted_products_trigger(
    workspace: Workspace, store: EventStore, shop: Shop,
    change: dict[str, object], triggers: tuple[str, ...],
) -> None:  # fmt: skip
    shop(0, **change)
    now = datetime.now(UTC) + timedelta(seconds=5)
    report = drift_report(workspace, SETTINGS, store, now=now)
    assert report.triggers == triggers
    assert report.verdict.startswith(f"Drift: {', '.join(triggers)}. 6 of 10 measures")


@pytest.mark.parametrize(
    ("change", "triggers"),
    [
        ({"fallback": 0.5}, ("fallback",)),
        ({"share": 0.1}, ("calibration",)),
        (
            {
                "items": [f"p{number}" for number in range(80)]
                + [f"n{number}" for number in range(40)]
            },
            ("new_products",),
        ),
        ({"items": [f"p{number}" for number in range(8)]}, ("shown_products",)),
    ],
)
def test_shifted_answers_trigger(
    workspace: Workspace, store: EventStore, change: dict[str, object], triggers: tuple[str, ...]
) -> None:
    now = datetime.now(UTC)
    answer_all(store, now, 1, **change)  # type: ignore[arg-type]
    report = drift_report(workspace, SETTINGS, store, now=now)
    assert report.triggers == triggers


def test_unshifted_samples_seldom_trigger(
    workspace: Workspace, tmp_path: Path, shop: Shop, store: EventStore, empty_store: Path
) -> None:
    alarms = []
    start = datetime.now(UTC)
    for seed in range(15):
        # Each time the same products change again, and a later period is looked at.
        now = start + timedelta(days=100 * seed)
        shop(seed)
        shutil.copyfile(empty_store, tmp_path / f"{seed}.db")
        with EventStore.open(f"sqlite:///{tmp_path}/{seed}.db") as answers:
            answer_all(answers, now, seed)
            report = drift_report(workspace, SETTINGS, answers, now=now)
        products = drift_report(workspace, SETTINGS, store, now=start + timedelta(days=1))
        alarms += [*report.triggers, *products.triggers]
    assert len(alarms) <= 1


@pytest.mark.parametrize(("before", "now"), [(1300, 100), (20_000, 60), (200, 200)])
@pytest.mark.parametrize("values", [30, 1000])
def test_columns_of_many_values_seldom_drift_by_chance(values: int, before: int, now: int) -> None:
    shares = 1 / np.arange(1, values + 1) ** (1 if values > 100 else 0)
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drawn = rng.choice(values, before + now, p=shares / shares.sum()).tolist()
        shift, _, _ = compare_values(drawn[:before], drawn[before:])
        alarms += shift.size >= 0.25 and shift.p_value < 0.001
    assert alarms <= 2


def test_little_data_is_unknown_and_says_how_much_is_needed(
    workspace: Workspace, store: EventStore, shop: Shop
) -> None:
    shop(0, count=7, price=9999.0)
    report = drift_report(workspace, SETTINGS, store, now=datetime.now(UTC) + timedelta(seconds=5))
    found = measured(report)
    assert (report.known, report.triggers) == (0, ())
    assert found["price"].reason == "7 changed products; at least 60 are needed"
    assert found["fallback"].reason == (
        "0 shown products in the period before and 0 shown products in the last one; at least 500 "
        "are needed"
    )
    assert report.verdict.startswith("Unknown")


def test_older_changes_do_not_count(workspace: Workspace, store: EventStore, shop: Shop) -> None:
    shop(0, price=9999.0)
    report = drift_report(workspace, SETTINGS, store, now=datetime.now(UTC) + timedelta(days=8))
    assert measured(report)["price"].reason.startswith("0 changed products")


def test_the_report_is_a_page_and_json(
    workspace: Workspace, store: EventStore, shop: Shop, tmp_path: Path
) -> None:
    shop(0, price=500.0)
    report = drift_report(workspace, SETTINGS, store, now=datetime.now(UTC) + timedelta(seconds=5))
    write_drift(report, tmp_path / "drift")
    page = (tmp_path / "drift" / "report.html").read_text()
    assert "Drift: price." in page
    assert "unknown: 0 shown products in the period before" in page
    kept = json.loads((tmp_path / "drift" / "report.json").read_text())
    assert kept["triggers"] == ["price"]
    assert {one["name"]: one["size"] for one in kept["measures"]}["fallback"] is None


def test_a_workspace_without_an_archive_is_an_error(tmp_path: Path, store: EventStore) -> None:
    empty = Workspace(tmp_path / "w", tmp_path / "shop", is_sample=False)
    with pytest.raises(SetupError, match=r"no archive yet: \./run archive"):
        drift_report(empty, SETTINGS, store)


def test_mmd_equals_the_definition():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 5)), rng.normal(0.5, 1, size=(40, 5))
    scale = np.median(pdist(np.concatenate([x, y]), "sqeuclidean"))

    def kernel(a, b):
        return np.exp(-cdist(a, b, "sqeuclidean") / scale)

    def within(a):
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))

    expected = within(x) + within(y) - 2 * kernel(x, y).mean()
    found = mmd(x.astype(np.float32), y.astype(np.float32))
    assert found.size == pytest.approx(expected, rel=1e-5)
    assert found.p_value < 0.01


def test_mmd_of_equal_distributions_is_about_0_and_not_significant():
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = mmd(*(rng.normal(size=(n, 8)).astype(np.float32) for n in (120, 60)), seed=seed)
        assert abs(found.size) < 0.05
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.15


def test_mmd_of_identical_rows_is_0():
    same = np.ones((20, 4), dtype=np.float32)
    found = mmd(same, same)
    assert found.size == pytest.approx(0, abs=1e-9)
    assert found.p_value == 1


def test_psi_equals_a_worked_example():
    # 50/30/20 % became 40/30/30 %: .1·ln(.5/.4) + .1·ln(.3/.2)
    found = psi(np.array([50_000, 30_000, 20_000]), np.array([40_000, 30_000, 30_000]))
    assert found.size == pytest.approx(0.1 * math.log(1.25) + 0.1 * math.log(1.5), rel=1e-3)
    assert found.p_value < 1e-9


def test_psi_of_one_bin_is_none_and_an_empty_bin_is_finite():
    assert psi(np.array([7]), np.array([3])) == (0.0, 1.0)
    assert math.isfinite(psi(np.array([10, 0]), np.array([0, 10])).size)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=12).filter(sum),
    st.lists(st.integers(0, 500), min_size=12, max_size=12).filter(lambda one: sum(one[:2])),
)
def test_psi_is_never_negative_and_symmetric(before, now):
    one, other = np.array(before), np.array(now[: len(before)])
    assert psi(one, other).size >= 0
    assert psi(one, other).size == pytest.approx(psi(other, one).size)
    assert psi(one, one).size == pytest.approx(0)


def test_psi_raises_few_false_alarms():
    p_values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.full(11, 2.0))
        p_values.append(psi(rng.multinomial(1300, shares), rng.multinomial(100, shares)).p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.07
    assert np.mean(np.array(p_values) < 0.01) <= 0.02


def test_psi_of_dependent_values_counts_their_draws():
    before, now = np.array([300, 700]), np.array([400, 600])
    free, bound = psi(before, now), psi(before, now, draws=(30, 30))
    assert free.size == bound.size
    assert free.p_value < 0.001
    assert bound.p_value == pytest.approx(stats.chi2.sf(bound.size * 15, 1))


def clicks(rng, scores, scale=1.0):
    return rng.random(len(scores)) < scale * 0.1 / (1 + np.exp(-scores))


def test_calibration_error_is_the_definition():
    old_scores, new_scores = np.array([0.0, 0, 1, 1]), np.array([0.0, 0, 0, 1])
    found = calibration_error(
        (old_scores, np.array([True, False, True, True])),
        (new_scores, np.array([False, False, True, False])),
        bins=2,
    )
    # Rates before: 1/2 and 1; now: 1/3 and 0. Mean rate before: 3/4.
    assert found.size == pytest.approx((3 / 4 * (1 / 2 - 1 / 3) + 1 / 4 * 1) / (3 / 4))


def test_calibration_drifts_when_clicks_halve_and_not_otherwise():
    found = []
    for scale in (1.0, 0.4):
        for seed in range(40):
            rng = np.random.default_rng(seed)
            old, new = rng.normal(size=20_000), rng.normal(size=15_000)
            before, now = (old, clicks(rng, old)), (new, clicks(rng, new, scale))
            found.append(calibration_error(before, now))
    same, halved = found[:40], found[40:]
    assert np.mean([one.p_value < 0.05 for one in same]) <= 0.15
    assert all(one.size < 0.3 for one in same)
    assert all(one.size > 0.4 and one.p_value < 1e-4 for one in halved)
