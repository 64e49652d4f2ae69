"""A 2-D map of embeddings: PCA, then t-SNE (van der Maaten & Hinton 2008)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from newshelf.evaluation.figures.canvas import COLOURS, MUTED, new_figure, save
from newshelf.evaluation.types import FloatArray

__all__ = ["MAX_POINTS", "draw_map", "project"]

MAX_POINTS = 2000
_COMPONENTS = 50
_PERPLEXITY = 30.0
_MIN_POINTS = 4
_OTHER = "other"


def project(embeddings: FloatArray, seed: int = 0) -> FloatArray:
    """(N, D) → (N, 2). Neighbours stay neighbours; distances between groups mean little.

    Args:
        embeddings: of 4 to ``MAX_POINTS`` items, finite.
        seed: of both steps.

    Raises:
        ValueError: too few or too many items.
    """
    if not _MIN_POINTS <= len(embeddings) <= MAX_POINTS:
        raise ValueError(f"{len(embeddings)} items: a map has {_MIN_POINTS} to {MAX_POINTS}")
    components = min(_COMPONENTS, *embeddings.shape)
    reduced = PCA(components, random_state=seed).fit_transform(embeddings.astype(np.float64))
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    places: FloatArray = tsne.fit_transform(reduced).astype(np.float32)
    return places


def draw_map(
    panels: Mapping[str, FloatArray], labels: Sequence[str], path: Path, title: str = ""
) -> None:
    """Write a PNG with the maps side by side, one point per item.

    Args:
        panels: title → (N, 2) places from :func:`project`, the same items in each.
        labels: (N,) what colours a point; all but the most frequent become "other".
        path: of the PNG.
        title: above the panels.

    Raises:
        ValueError: the lengths differ, or there is no panel.
    """
    if not panels or any(len(places) != len(labels) for places in panels.values()):
        raise ValueError(f"{len(labels)} labels for {[len(p) for p in panels.values()]} places")
    shown, colours = _colours(labels)
    figure = new_figure(4.9 * len(panels) + 2.2, 5.2)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, places) in zip(axes, panels.items(), strict=True):
        for label, colour in colours.items():
            chosen = shown == label
            panel.scatter(
                *places[chosen].T, s=9, color=colour, label=label, linewidths=0, alpha=0.8
            )
        panel.set_title(name, fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_color("#d5d9e0")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside right center", frameon=False, fontsize=9, markerscale=2.5
    )
    if title:
        figure.suptitle(title, fontsize=13)
    save(figure, path)


def _colours(labels: Sequence[str]) -> "tuple[np.ndarray, dict[str, str]]":
    """The label that each point is shown with, and the colours; "other" comes first, below."""
    frequent = [label for label, _ in Counter(labels).most_common(len(COLOURS))]
    shown = np.array([label if label in frequent else _OTHER for label in labels])
    colours = dict(zip(sorted(frequent), COLOURS, strict=False))
    return shown, ({_OTHER: MUTED} | colours) if _OTHER in shown else colours
