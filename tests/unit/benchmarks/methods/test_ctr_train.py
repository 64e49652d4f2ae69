"""xDeepFM learns what a linear model cannot, ranks, resumes, and refuses bad input."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.methods.ctr.fields import Field, FieldTable
from benchmarks.methods.ctr.impressions import Impressions, Negatives, positives
from benchmarks.methods.ctr.train import (
    LogLoss,
    Pairs,
    PairwiseLoss,
    calibration_error,
    pairwise_loss,
    predict,
    train_xdeepfm,
)
from benchmarks.methods.ctr.xdeepfm import XDeepFM, XDeepFMRanker, XDeepFMSettings
from newshelf.training.run import Run

TINY = XDeepFMSettings(
    loss="log",
    width=4,
    cin=(8, 8),
    deep=(),
    init_std=0.4,
    epochs=25,
    batch_size=64,
    learning_rate=0.03,
    item_dropout=0.0,
)


@pytest.fixture
def run(said) -> Run:
    return Run(seed=3, console=said.console, quiet=True)


def shown(items, label=None):
    items = np.asarray(items, dtype=np.int64)
    return Impressions(
        sequence=np.zeros(len(items), dtype=np.int64),
        user=np.zeros(len(items), dtype=np.int64),
        item=items,
        history=np.full((len(items), 1), -1),
        timestamp=np.full(len(items), -1),
        label=np.ones(len(items), np.float32) if label is None else label.astype(np.float32),
    )


def parity(order: int) -> tuple[FieldTable, Impressions]:
    """Items of ``order`` binary attributes that are taken when an even number of them is 1."""
    combinations = np.array(list(product((0, 1), repeat=order)), dtype=np.int64)
    names = ("color", "material", "size")[:order]
    table = FieldTable(
        fields=tuple(Field(name=name, kind="category", size=3) for name in names),
        item_rows=np.zeros(len(combinations), dtype=np.int64),
        attributes={name: combinations[:, at] + 1 for at, name in enumerate(names)},
        embeddings=torch.zeros(len(combinations), 0),
    )
    items = np.tile(np.arange(len(combinations)), 256 // len(combinations))
    return table, shown(items, combinations[items].sum(axis=1) % 2 == 0)


def learned(order: int, run: Run, **changed) -> float:
    table, rows = parity(order)
    model = train_xdeepfm(table, rows, replace(TINY, **changed), run)
    return float(roc_auc_score(rows.label, predict(model, table, rows)))


@pytest.mark.parametrize("order", [2, 3])
def test_crosses_are_learned_that_a_linear_model_cannot(order, run):
    assert learned(order, run) > 0.99
    assert learned(order, run, cin=(), deep=()) < 0.6
    assert learned(order, run, cin=(), deep=(16, 16)) > 0.99


def test_a_cross_of_three_needs_a_second_layer(run):
    assert learned(3, run, cin=(8,)) < 0.8
    assert learned(2, run, cin=(8,)) > 0.99


def test_the_pairwise_loss_is_the_mean_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(shape, generator=generator) for shape in ((4,), (4, 3)))
    pairs = [
        -np.log(1 / (1 + np.exp(-(float(positive[b]) - float(negative[b, n])))))
        for b in range(4)
        for n in range(3)
    ]
    assert float(pairwise_loss(positive, negative)) == pytest.approx(np.mean(pairs), rel=1e-5)


@torch.no_grad()
def test_objectives_compare_each_row_with_its_own(run):
    table, rows = parity(3)
    torch.manual_seed(0)
    model = XDeepFM(table.fields, XDeepFMSettings(init_std=0.5)).eval()
    pairs = Pairs(shown([0, 5]), shown([1, 2, 3, 4]))
    score = predict(model, table, shown(range(8)))
    expected = -np.log(
        [1 / (1 + np.exp(score[n] - score[p])) for p, n in ((0, 1), (0, 2), (5, 3), (5, 4))]
    ).mean()
    assert float(PairwiseLoss(model, table, 0)(pairs)["loss"]) == pytest.approx(expected, 1e-4)
    probability = 1 / (1 + np.exp(-predict(model, table, rows)))
    entropy = -np.log(np.where(rows.label == 1, probability, 1 - probability)).mean()
    assert float(LogLoss(model, table, 0)(rows)["loss"]) == pytest.approx(entropy, rel=1e-4)


ITEMS, NEW = 24, 4


def planted() -> tuple[FieldTable, list[np.ndarray]]:
    """Each shopper takes even items or odd ones; the last ``NEW`` items nobody has seen."""
    known = ITEMS - NEW
    rows = np.where(np.arange(ITEMS) < known, np.arange(ITEMS) + 1, 0)
    color = np.arange(ITEMS) % 2
    table = FieldTable(
        fields=(
            Field(name="item", kind="category", size=known + 1),
            Field(name="color", kind="category", size=3),
            Field(name="hour", kind="category", size=25),
            Field(name="history", kind="bag", size=known + 1),
            Field(name="embedding", kind="dense", size=2),
            Field(name="history_embedding", kind="dense", size=2),
        ),
        item_rows=rows,
        attributes={"color": color + 1},
        embeddings=torch.eye(2)[torch.from_numpy(color)],
    )
    rng = np.random.default_rng(5)
    return table, [rng.permutation(np.arange(at % 2, known, 2))[:6] for at in range(40)]


def trained(run, loss, **changed):
    table, sequences = planted()
    times = [np.arange(len(sequence)) * 3600 for sequence in sequences]
    settings = replace(
        TINY, **{"loss": loss, "deep": (8,), "item_dropout": 0.3, "epochs": 12, **changed}
    )
    model = train_xdeepfm(
        table,
        positives(sequences, times, 3),
        settings,
        run,
        negatives=Negatives(sequences, ITEMS),
    )
    return table, model


@pytest.mark.parametrize("loss", ["log", "pairwise"])
def test_a_history_of_one_kind_is_answered_with_it_and_new_items_too(loss, run):
    table, model = trained(run, loss)
    scores = XDeepFMRanker(model, table, 3, 0).scores([np.array([0, 2]), np.array([5, 7, 9])])
    for row, kind in zip(scores, (0, 1), strict=True):
        for items in (np.arange(ITEMS - NEW), np.arange(ITEMS - NEW, ITEMS)):
            liked = items % 2 == kind
            assert row[items[liked]].min() > row[items[~liked]].max()


def test_the_ranker_scores_what_the_network_does_row_by_row(run):
    table, model = trained(run, "pairwise", epochs=1)
    histories = [np.array([0, 2, 4, 6]), np.array([23]), np.array([], dtype=np.int64)]
    windows = [[6, 4, 2], [23, -1, -1], [-1, -1, -1]]
    scores = XDeepFMRanker(model, table, 3, timestamp=7200).scores(histories)
    assert scores.dtype == np.float32
    for row, window in zip(scores, windows, strict=True):
        asked = replace(
            shown(range(ITEMS)),
            history=np.tile(window, (ITEMS, 1)),
            timestamp=np.full(ITEMS, 7200),
        )
        np.testing.assert_allclose(row, predict(model, table, asked), atol=1e-5)


def test_dropped_ids_are_read_as_unknown(run):
    table, model = trained(run, "log", epochs=1)
    objective = LogLoss(model, table, 1.0)
    new = replace(table, item_rows=np.zeros(ITEMS, dtype=np.int64))
    rows = shown(range(ITEMS))
    with torch.no_grad():
        hidden = objective.train()(rows)["loss"]
        unknown = LogLoss(model, new, 0.0)(rows)["loss"]
        shown_ids = objective.eval()(rows)["loss"]
    assert float(hidden) == pytest.approx(float(unknown))
    assert float(shown_ids) != pytest.approx(float(hidden))


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, run):
    _, straight = trained(run, "pairwise", epochs=4)
    kept = replace(run, state=tmp_path)
    trained(kept, "pairwise", epochs=2)
    _, resumed = trained(kept, "pairwise", epochs=4)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_calibration_error_is_the_mean_gap_over_bins():
    probability = np.array([0.9, 0.1, 0.8, 0.2], dtype=np.float32)
    label = np.array([1, 0, 0, 0], dtype=np.float32)
    gaps = abs(0.0 - 0.15), abs(0.5 - 0.85)
    assert calibration_error(probability, label, bins=2) == pytest.approx(np.mean(gaps))
    assert calibration_error(label, label) == 0
    rng = np.random.default_rng(0)
    honest = rng.random(20_000, dtype=np.float32)
    drawn = (rng.random(20_000) < honest).astype(np.float32)
    assert calibration_error(honest, drawn) < 0.02
    assert calibration_error(honest**3, drawn) > 0.2
