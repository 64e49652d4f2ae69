"""Pictures of what a model has learned, from its embeddings before and after training."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from newshelf.evaluation.classification import FewShot
from newshelf.evaluation.report import learning_curves
from newshelf.evaluation.types import FloatArray, IntArray
from newshelf.report.page import Picture
from newshelf.report.plots import (
    Line,
    NeighbourRow,
    Tile,
    draw_confusion,
    draw_lines,
    draw_map,
    draw_neighbours,
)

MAP_POINTS = 1200
"""A t-SNE of 1,200 points takes seconds; of 2,000, three times as long."""
MAX_PROJECTED = 2000
_PCA_COMPONENTS = 50
_PERPLEXITY = 30.0
_MIN_PROJECTED = 4
_QUERIES = 4
_NEIGHBOURS = 6
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Gallery:
    """N products, and where they lie before and after training."""

    titles: Sequence[str]
    pictures: Sequence[Path | None]
    kinds: Sequence[tuple[str, ...]]
    """Levels of the product type; empty without one."""
    before: FloatArray
    """(N, D) the frozen towers' features."""
    after: FloatArray
    """(N, E) the model's embeddings."""
    new: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    """(N,) True for the products of the categories that were not learned from."""


def draw_model(
    shelf: Gallery, training: Mapping[str, Any], shots: FewShot | None, folder: Path, seed: int
) -> list[Picture]:
    """Draw what the data allow into ``folder``.

    Args:
        shelf: the products.
        training: a checkpoint's ``training.json``.
        shots: accuracy over shots, when it was measured.
        folder: exists; gets the PNGs.
        seed: of the map, and of the choice of queries.
    """
    pictures: list[Picture] = []
    if curves := learning_curves(training):
        draw_lines(curves, folder / "learning.png", xlabel="epoch", ylabel="mean of the epoch")
        pictures.append(Picture("learning.png", "Learning curves: means over each epoch"))
    if shots is not None:
        pictures += _draw_shots(shots, folder)
    if len(shelf.titles) >= _FEWEST:
        pictures += [_draw_map(shelf, folder, seed), _draw_neighbours(shelf, folder, seed)]
    return pictures


def _draw_shots(shots: FewShot, folder: Path) -> list[Picture]:
    lines = {
        name: Line(shots.shots, shots.means(name).tolist(), shots.spreads(name).tolist())
        for name in shots.accuracy
    }
    draw_lines(
        {f"{len(shots.classes)} product types": lines},
        folder / "shots.png",
        xlabel="labelled products per type",
        ylabel="accuracy",
        percent=True,
        log_x=True,
    )
    name, last = list(shots.last.items())[-1]
    draw_confusion(
        last.confusion,
        shots.classes,
        folder / "confusion.png",
        f"{name}, {shots.shots[-1]} labels per type",
    )
    return [
        Picture("shots.png", "Accuracy of a linear probe over the number of labels per type"),
        Picture("confusion.png", "Which type was taken for which, with the most labels"),
    ]


def _draw_map(shelf: Gallery, folder: Path, seed: int) -> Picture:
    chosen = np.arange(len(shelf.titles))
    if len(chosen) > MAP_POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MAP_POINTS, replace=False))
    labels = _map_labels([shelf.kinds[row] for row in chosen.tolist()])
    panels = {
        "before: the towers' features": project(shelf.before[chosen], seed),
        "after: the model's embeddings": project(shelf.after[chosen], seed),
    }
    draw_map(panels, labels, folder / "map.png")
    return Picture(
        "map.png",
        f"{len(chosen)} products by t-SNE, before and after training; "
        "near to each other is alike, the distance of groups says little",
    )


def _map_labels(kinds: Sequence[tuple[str, ...]]) -> list[str]:
    """The first level, or the last where all products share the first."""
    tops = Counter(kind[0] for kind in kinds if kind)
    level = 0 if len(tops) > 1 else -1
    return [textwrap.shorten(kind[level], 24, placeholder="…") if kind else "no type"
            for kind in kinds]  # fmt: skip


def _draw_neighbours(shelf: Gallery, folder: Path, seed: int) -> Picture:
    rows = []
    for query in _queries(shelf, seed):
        for name, vectors in (("before", shelf.before), ("after", shelf.after)):
            near = _nearest(vectors, query)
            tiles = [_tile(shelf, row, query) for row in near]
            rows.append(NeighbourRow(name, _tile(shelf, query, query), tiles))
    draw_neighbours(rows, folder / "neighbours.png")
    return Picture(
        "neighbours.png", "Products and what lies nearest to them, before and after training"
    )


def _queries(shelf: Gallery, seed: int) -> list[int]:
    """Products with pictures, new ones first, of different and not too rare kinds."""
    order = np.random.default_rng(seed).permutation(len(shelf.titles))
    last = [kind[-1:] for kind in shelf.kinds]
    sizes = Counter(shelf.kinds)

    def worth(row: int) -> tuple[bool, bool, bool]:
        is_rare = sizes[shelf.kinds[row]] <= _NEIGHBOURS
        return shelf.pictures[row] is None, not shelf.new[row], is_rare

    by_worth = sorted(order.tolist(), key=worth)
    seen: set[tuple[str, ...]] = set()
    first: list[int] = []
    again: list[int] = []
    for row in by_worth:
        (again if last[row] in seen else first).append(row)
        seen.add(last[row])
    return (first + again)[:_QUERIES]


def _nearest(vectors: FloatArray, query: int) -> IntArray:
    """The rows with the highest cosine to the query, itself left out."""
    norms = np.linalg.norm(vectors, axis=1)
    cosine = vectors @ vectors[query] / np.maximum(norms * norms[query], 1e-12)
    cosine[query] = -np.inf
    near: IntArray = np.argsort(-cosine, kind="stable")[:_NEIGHBOURS].astype(np.int64)
    return near


def _tile(shelf: Gallery, row: int, query: int) -> Tile:
    same = bool(shelf.kinds[row]) and shelf.kinds[row] == shelf.kinds[query]
    return Tile(shelf.pictures[row], shelf.titles[row], same)


def project(embeddings: FloatArray, seed: int = 0) -> FloatArray:
    """(N, D) → (N, 2). Neighbours stay neighbours; distances between groups mean little.

    Args:
        embeddings: of 4 to ``MAX_PROJECTED`` items, finite.
        seed: of both steps.

    Raises:
        ValueError: too few or too many items.
    """
    if not _MIN_PROJECTED <= len(embeddings) <= MAX_PROJECTED:
        raise ValueError(f"{len(embeddings)} items: a map has {_MIN_PROJECTED} to {MAX_PROJECTED}")
    components = min(_PCA_COMPONENTS, *embeddings.shape)
    reduced = PCA(components, random_state=seed).fit_transform(embeddings.astype(np.float64))
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    places: FloatArray = tsne.fit_transform(reduced).astype(np.float32)
    return places
