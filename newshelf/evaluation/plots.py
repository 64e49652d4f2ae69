"""Plots of an evaluation: NDCG per split, and embeddings before and after training."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from newshelf.evaluation.assortment import nearest
from newshelf.evaluation.evaluate import Comparison
from newshelf.evaluation.metrics import FewShot
from newshelf.evaluation.types import FloatArray
from newshelf.report.page import Picture
from newshelf.report.plots import (
    COLOURS,
    MUTED,
    Bar,
    BarPanel,
    Line,
    Tile,
    draw_bars,
    draw_confusion,
    draw_lines,
    draw_map,
    draw_tiles,
)

_MAP_POINTS = 1200
"""A t-SNE of 1,200 points takes seconds; of 2,000, three times as long."""
_MAX_PROJECTED = 2000
_PCA_COMPONENTS = 50
_PERPLEXITY = 30.0
_MIN_PROJECTED = 4
_QUERIES = 4
_NEIGHBOURS = 6
_MIN_GALLERY = 8
"""Products, for a map and neighbours."""
_MIN_EPOCHS = 2
_BEST_COLOUR, _MODEL_COLOUR = "#5b7fa6", "#d9622b"
"""Those of the report's tables."""


def draw_comparisons(comparisons: Sequence[Comparison], path: Path, title: str) -> None:
    """Write a PNG with NDCG at the first cut-off: a panel per split, a bar per ranker."""
    panels = [
        BarPanel(f"{one.split} ({one.cases} cases)", f"NDCG@{one.k[0]}", _bars(one))
        for one in comparisons
    ]
    draw_bars(panels, path, title)


def _bars(comparison: Comparison) -> list[Bar]:
    metric = f"NDCG@{comparison.k[0]}"
    colours = {id(comparison.best_baseline): _BEST_COLOUR, id(comparison.model): _MODEL_COLOUR}
    return [
        Bar(
            row.ranker,
            row.values[metric],
            row.intervals.get(metric, (row.values[metric],) * 2),
            colours.get(id(row), MUTED),
        )
        for row in comparison.rows
    ]


@dataclass(frozen=True, eq=False)
class Gallery:
    """N products with their embeddings before and after training."""

    titles: Sequence[str]
    pictures: Sequence[Path | None]
    kinds: Sequence[tuple[str, ...]]
    """Levels of the product type; empty without one."""
    before: FloatArray
    """(N, D) features of the frozen towers."""
    after: FloatArray
    """(N, E) embeddings of the model."""
    new: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    """(N,) True for products of categories that the model was not trained on."""


def draw_model(
    gallery: Gallery, training: Mapping[str, Any], shots: FewShot | None, folder: Path, seed: int
) -> list[Picture]:
    """Draw what data and a ``training.json`` allow: curves, few shots, map and neighbours."""
    pictures: list[Picture] = []
    if curves := learning_curves(training):
        draw_lines(curves, folder / "learning.png", xlabel="epoch", ylabel="mean of the epoch")
        pictures.append(Picture("learning.png", "Learning curves: means over each epoch"))
    if shots is not None:
        pictures += _draw_shots(shots, folder)
    if len(gallery.titles) >= _MIN_GALLERY:
        pictures += [_draw_map(gallery, folder, seed), _draw_neighbours(gallery, folder, seed)]
    return pictures


def learning_curves(training: Mapping[str, Any]) -> dict[str, dict[str, Line]]:
    """Return the losses of each loop of a ``training.json`` that has several epochs."""
    losses = {
        f"finetune {number}": stage["losses"]
        for number, stage in enumerate(training.get("finetune", ()), start=1)
    }
    losses["scorer"] = training.get("scorer_losses", ())
    return {
        title: {"loss": Line(range(1, len(values) + 1), values)}
        for title, values in losses.items()
        if len(values) >= _MIN_EPOCHS
    }


def _draw_shots(shots: FewShot, folder: Path) -> list[Picture]:
    lines = {
        name: Line(shots.shots, drawn.mean(axis=1).tolist(), drawn.std(axis=1).tolist())
        for name, drawn in shots.accuracy.items()
    }
    draw_lines(
        {f"{len(shots.classes)} product types": lines},
        folder / "shots.png",
        xlabel="labelled products per type",
        ylabel="accuracy",
        percent=True,
        log_x=True,
    )
    name, confusion = list(shots.confusion.items())[-1]
    draw_confusion(
        confusion,
        shots.classes,
        folder / "confusion.png",
        f"{name}, {shots.shots[-1]} labels per type",
    )
    return [
        Picture("shots.png", "Accuracy of a linear probe over the number of labels per type"),
        Picture("confusion.png", "Confusion matrix with the most labels per type"),
    ]


def _draw_map(gallery: Gallery, folder: Path, seed: int) -> Picture:
    chosen = np.arange(len(gallery.titles))
    if len(chosen) > _MAP_POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MAP_POINTS, replace=False))
    labels = _map_labels([gallery.kinds[row] for row in chosen.tolist()])
    panels = {
        "before: the towers' features": project(gallery.before[chosen], seed),
        "after: the model's embeddings": project(gallery.after[chosen], seed),
    }
    draw_map(panels, labels, folder / "map.png")
    return Picture(
        "map.png",
        f"{len(chosen)} products by t-SNE, before and after training; neighbours are similar, "
        "distances between groups mean little",
    )


def _map_labels(kinds: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the first level of each kind, or the last if all share the first."""
    tops = Counter(kind[0] for kind in kinds if kind)
    level = 0 if len(tops) > 1 else -1
    return [textwrap.shorten(kind[level], 24, placeholder="…") if kind else "no type"
            for kind in kinds]  # fmt: skip


def _draw_neighbours(gallery: Gallery, folder: Path, seed: int) -> Picture:
    rows = []
    for query in _queries(gallery, seed):
        for vectors in (gallery.before, gallery.after):
            near, _ = nearest(vectors, vectors[query], _NEIGHBOURS + 1)
            others = [row for row in near.tolist() if row != query][:_NEIGHBOURS]
            rows.append([_tile(gallery, row, query) for row in (query, *others)])
    draw_tiles(rows, folder / "neighbours.png")
    return Picture(
        "neighbours.png",
        "Products (blue) and their nearest neighbours, a row before and a row after training; "
        "green: the same kind",
    )


def _queries(gallery: Gallery, seed: int) -> list[int]:
    """Choose products of different kinds: with pictures first, then new ones, then frequent."""
    order = np.random.default_rng(seed).permutation(len(gallery.titles))
    last = [kind[-1:] for kind in gallery.kinds]
    sizes = Counter(gallery.kinds)

    def priority(row: int) -> tuple[bool, bool, bool]:
        is_rare = sizes[gallery.kinds[row]] <= _NEIGHBOURS
        return gallery.pictures[row] is None, not gallery.new[row], is_rare

    by_priority = sorted(order.tolist(), key=priority)
    first = {last[row]: row for row in reversed(by_priority)}.values()
    return sorted(by_priority, key=lambda row: row not in first)[:_QUERIES]


def _tile(gallery: Gallery, row: int, query: int) -> Tile:
    same = bool(gallery.kinds[row]) and gallery.kinds[row] == gallery.kinds[query]
    colour = COLOURS[0] if row == query else COLOURS[2] if same else MUTED
    return Tile(gallery.pictures[row], gallery.titles[row], colour)


def project(embeddings: FloatArray, seed: int = 0) -> FloatArray:
    """Project (N, D) embeddings to (N, 2): PCA, then t-SNE (van der Maaten & Hinton 2008)."""
    if not _MIN_PROJECTED <= len(embeddings) <= _MAX_PROJECTED:
        raise ValueError(f"{len(embeddings)} items: a map has {_MIN_PROJECTED} to {_MAX_PROJECTED}")
    components = min(_PCA_COMPONENTS, *embeddings.shape)
    reduced = PCA(components, random_state=seed).fit_transform(embeddings.astype(np.float64))
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    places: FloatArray = tsne.fit_transform(reduced).astype(np.float32)
    return places
