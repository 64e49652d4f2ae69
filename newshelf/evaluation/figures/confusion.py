"""A confusion matrix: which class was taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from newshelf.evaluation.figures.canvas import new_figure, save
from newshelf.evaluation.types import IntArray

__all__ = ["draw_confusion"]

_MOST = 20
_LIGHT = 0.55
_LONGEST = 28


def draw_confusion(confusion: IntArray, classes: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: rows are true classes, columns predicted ones, shade is the row's share.

    Of more than 20 classes, those 20 are shown that were mistaken most often, among each
    other; the title says so.

    Args:
        confusion: (C, C) counts.
        classes: (C,) names.
        path: of the PNG.
        title: above.

    Raises:
        ValueError: the shape does not fit the classes.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(f"a matrix {confusion.shape} for {count} classes")
    if count > _MOST:
        mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
        worst = np.sort(np.argsort(-mistakes, kind="stable")[:_MOST])
        title = f"{title}: the {_MOST} of {count} classes mistaken most"
        confusion, classes = confusion[np.ix_(worst, worst)], [classes[row] for row in worst]
        count = _MOST
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.42 * count
    figure = new_figure(max(side + 1.2, 5.0), max(side, 4.0))
    panel = figure.subplots()
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in classes]
    panel.set_xticks(range(count), names, rotation=45, ha="right", fontsize=9)
    panel.set_yticks(range(count), names, fontsize=9)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    for row, column in np.argwhere(confusion > 0):
        colour = "white" if share[row, column] > _LIGHT else "#333333"
        panel.text(
            column, row, str(confusion[row, column]),
            ha="center", va="center", fontsize=8, color=colour,
        )  # fmt: skip
    panel.set_title(title, fontsize=11)
    save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]
