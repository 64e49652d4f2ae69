"""xDeepFM: checked against DeepCTR-Torch, and as a ranker compared with EASE."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.methods.ctr.fields import FieldTable, Vocabulary, field_table
from benchmarks.methods.ctr.impressions import Impressions, Negatives, positives
from benchmarks.methods.ctr.train import calibration_error, predict, train_xdeepfm
from benchmarks.methods.ctr.xdeepfm import XDeepFM, XDeepFMRanker, XDeepFMSettings
from benchmarks.results import Goal, RowBuilder, TaskResult
from benchmarks.transfer.command import TransferContext
from benchmarks.transfer.deepctr import PeerResult, peer_python, run_peer, twin
from benchmarks.transfer.ranking import merged
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import Interactions, from_events
from newshelf.errors import TrainingError
from newshelf.evaluation.baselines import Ease, Popularity
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.splits import cut_at
from newshelf.evaluation.types import IntArray, Ranker, Split
from newshelf.training.run import Run

_TEST_SHARE = 0.15
"""Share of the latest events for the test, without a held-out part."""


@dataclass(frozen=True, eq=False)
class Shop:
    """A catalogue with its events, and the time between training and test."""

    catalog: Catalog
    interactions: Interactions
    timestamps: Sequence[IntArray]
    cut: int
    """Epoch seconds of the first test event."""

    @property
    def day(self) -> str:
        """Day of the cut."""
        return f"{datetime.fromtimestamp(self.cut, UTC):%d %B %Y}"


def read_shop(context: TransferContext, name: str) -> Shop:
    """Return the data set; its held-out part, if any, is the test.

    Raises:
        TrainingError: it has no events.
    """
    source = merged(context, name)
    events = source.catalog.events
    if events is None:
        raise TrainingError(f"{name} has no events")
    if source.kept_back_events.any():
        cut = int(events["timestamp"][source.kept_back_events].min())
    else:
        cut = int(np.quantile(events["timestamp"], 1 - _TEST_SHARE, method="higher"))
    interactions = from_events(events, source.catalog.item_index)
    if interactions.timestamps is None:
        raise TrainingError(f"{name} has no events of known items")
    return Shop(source.catalog, interactions, interactions.timestamps, cut)


def time_case_split(shop: Shop, max_cases: int, seed: int) -> Split:
    """Return a split: training before the cut, cases are users' first purchases of items after it.

    Of more than ``max_cases`` cases, others are left out at random, since a click model scores
    every pair.
    """
    train, cases = cut_at(shop.interactions, shop.cut)
    chosen = np.random.default_rng(seed).permutation(len(cases))[:max_cases]
    return Split(
        name="time",
        train=train,
        cases=[cases[number] for number in np.sort(chosen)],
        candidates=np.ones(shop.interactions.n_items, dtype=np.bool_),
        description=f"events before {shop.day}, asked for what came after",
    )


def labelled_rows(
    shop: Shop, train_rows: int, test_rows: int, max_history: int, seed: int
) -> tuple[Impressions, Impressions, int]:
    """Return first purchases with label 1, each with a sampled item that the user did not take.

    A row's history is what came before it, after the cut too; the model learns from nothing
    after it. Users and items that first came after the cut are unknown to it.

    Returns:
        Training rows, test rows, and the size of the users' vocabulary.
    """
    sequences = shop.interactions.sequences
    train = [row[at < shop.cut] for row, at in zip(sequences, shop.timestamps, strict=True)]
    names = [f"u{number}" for number in range(len(train))]
    known = Vocabulary(name for name, row in zip(names, train, strict=True) if len(row))
    every = positives(sequences, shop.timestamps, max_history, known.rows(names))
    rng = np.random.default_rng(seed)
    n_items = shop.interactions.n_items
    past = every.timestamp < shop.cut
    parts = []
    for taken, kept, count in ((train, past, train_rows), (sequences, ~past, test_rows)):
        rows = rng.permutation(np.flatnonzero(kept))[: count // 2]
        parts.append(Negatives(taken, n_items).labelled(every.take(rows), 1, rng))
    return parts[0], parts[1], known.size


_TRAIN_ROWS, _TEST_ROWS, _HISTORY = 200_000, 60_000, 20
_RANKED_HISTORY = 60
_CASES = 500
_CUTOFF = 20
_PEER = "DeepCTR-Torch 0.3.0"
_AUC, _DIFFERENCE = "AUC", "AUC, distance to the peer"
_LOG_LOSS, _ECE = "log-loss", "calibration error"
_RECALL, _NDCG = f"Recall@{_CUTOFF}", f"NDCG@{_CUTOFF}"
_NAMES: dict[Literal["pairwise", "log"], str] = {"pairwise": "pairwise loss", "log": "log-loss"}
_MEASURES = (_AUC, _DIFFERENCE, _LOG_LOSS, _ECE, _RECALL, _NDCG)
_LIMIT = 0.003
_CHECKED = XDeepFMSettings(
    loss="log",
    width=16,
    cin=(32, 32),
    cin_activation="relu",
    deep=(64, 32),
    epochs=2,
    batch_size=1024,
    learning_rate=1e-3,
    item_dropout=0.0,
)
"""Settings of both libraries: their defaults except sizes, without regularisation."""
_RANKED = XDeepFMSettings(
    width=16,
    cin=(16,),
    deep=(64, 32),
    epochs=4,
    max_rows=100_000,
    negatives=4,
    learning_rate=3e-3,
    weight_decay=1e-5,
)
_CHECKED_FIELDS = ("user", "item", "price", "hour", "weekday", "month", "history")
_RANKED_FIELDS = ("item", "price", "history", "embedding", "history_embedding")


def run(context: TransferContext) -> TaskResult:
    """Run both comparisons on retail."""
    shop = read_shop(context, "retail")
    python = peer_python(context.work, context.console)
    rows = RowBuilder()
    notes: list[str] = []
    for seed in context.seeds:
        _check(context, shop, seed, python, rows, notes)
    _rank(context, shop, rows)
    return TaskResult(
        task="xdeepfm",
        title="xDeepFM, checked against a library and as a ranker (retail)",
        protocol=_protocol(shop),
        rows=rows.rows(_MEASURES),
        goals=[Goal(_DIFFERENCE, _LIMIT)],
        notes=notes,
        percent=False,
        lower_is_better=(_DIFFERENCE, _LOG_LOSS, _ECE),
    )


def _check(
    context: TransferContext,
    shop: Shop,
    seed: int,
    python: Path,
    rows: RowBuilder,
    notes: list[str],
) -> None:
    """Compare our probabilities and the peer's for the same rows."""
    train, test, users = labelled_rows(shop, _TRAIN_ROWS, _TEST_ROWS, _HISTORY, seed)
    known = np.unique(train.item[train.label == 1])
    table = field_table(shop.catalog, known, _CHECKED_FIELDS, users=users)
    model = _trained(context, table, train, _CHECKED, seed, None)
    ours = expit(predict(model, table, test))
    counts = np.bincount(train.item, train.label, minlength=len(shop.catalog.items))
    rows.add("popularity", {_AUC: _auc(test, counts[test.item].astype(np.float32))}, baseline=True)
    rows.add("xDeepFM, log-loss", {_AUC: _auc(test, ours), **_calibration(ours, test)})
    half = np.full(len(test), 0.5, dtype=np.float32)
    rows.add("always one half", _calibration(half, test), baseline=True)
    folder = context.work / "xdeepfm"
    found = run_peer(python, folder, table, train, test, _CHECKED, seed)
    theirs = _auc(test, found.probability)
    rows.add(_PEER, {_AUC: theirs, **_calibration(found.probability, test)}, baseline=True)
    rows.add("xDeepFM, log-loss", {_DIFFERENCE: abs(_auc(test, ours) - theirs)})
    if seed == context.seeds[0]:
        notes.append(_same_weights(found, table, test))


def _rank(context: TransferContext, shop: Shop, rows: RowBuilder) -> None:
    """Rank the whole catalogue with both losses."""
    backbone = context.backbone(shop.catalog)
    with torch.inference_mode():
        embeddings = backbone.encoder.fuse(
            *backbone.table.rows(torch.arange(len(shop.catalog.items)))
        )
    split = time_case_split(shop, _CASES, context.settings.seed)
    for name, plain in (("popularity", Popularity(split)), ("EASE", Ease(split))):
        # They are deterministic: one value for all seeds.
        for _ in context.seeds:
            rows.add(name, _ranking(plain, split), baseline=True)
    known = np.unique(split.train.items)
    table = field_table(shop.catalog, known, _RANKED_FIELDS, embeddings=embeddings)
    times = split.train.timestamps or ()
    taken = positives(split.train.sequences, times, _RANKED_HISTORY)
    negatives = Negatives(split.train.sequences, split.n_items)
    for loss, name in _NAMES.items():
        settings = replace(_RANKED, loss=loss)
        for seed in context.seeds:
            model = _trained(context, table, taken, settings, seed, negatives)
            ranker = XDeepFMRanker(model, table, _RANKED_HISTORY, shop.cut)
            rows.add(f"xDeepFM, {name}", _ranking(ranker, split))


def _trained(
    context: TransferContext,
    table: FieldTable,
    rows: Impressions,
    settings: XDeepFMSettings,
    seed: int,
    negatives: Negatives | None,
) -> XDeepFM:
    quiet = Run(seed, context.console, quiet=True)
    return train_xdeepfm(table, rows, settings, quiet, negatives=negatives)


def _ranking(ranker: Ranker, split: Split) -> dict[str, float]:
    metrics = evaluate(ranker, split, (_CUTOFF,))
    return {_RECALL: metrics.values[f"Recall@{_CUTOFF}"], _NDCG: metrics.values[f"NDCG@{_CUTOFF}"]}


def _auc(rows: Impressions, score: NDArray[np.floating]) -> float:
    return float(roc_auc_score(rows.label, score))


def _calibration(probability: NDArray[np.floating], rows: Impressions) -> dict[str, float]:
    return {
        _LOG_LOSS: float(log_loss(rows.label, probability)),
        _ECE: calibration_error(probability, rows.label),
    }


def _same_weights(found: PeerResult, table: FieldTable, test: Impressions) -> str:
    """Return a note on whether both networks compute the same function."""
    same = twin(found, table, _CHECKED)
    distance = np.abs(expit(predict(same, table, test)) - found.probability).max()
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return (
        f"The peer ({versions}) ran in its own environment and trained for {found.seconds:.0f} s. "
        f"With its weights read into our network, the probabilities of the {len(test):,} test "
        f"rows differ by at most {distance:.1e}."
    )


def _protocol(shop: Shop) -> str:
    return (
        f"Purchases before {shop.day} are learned from, later ones tested on. **AUC**: "
        f"{_TRAIN_ROWS:,} training and {_TEST_ROWS:,} test rows, half of them first purchases "
        "and half sampled items that the user did not take; fields: user, item, price, hour, "
        "weekday, month and the items bought before; both libraries get the same arrays, sizes, "
        "learning rate, epochs and initial distributions, no regularisation, and a seed of their "
        f"own. **Ranking**: all {shop.interactions.n_items:,} items ranked for {_CASES} users "
        "by what they bought before; fields: item, price, history, embedding of the item and mean "
        "embedding of the history. Sizes, learning rate and epochs were chosen on the last "
        "15 % of the training's purchases. Half of the test rows are purchases by design, so that "
        "always one half is calibrated without telling any two rows apart."
    )
