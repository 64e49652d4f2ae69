"""Figures and linear probe of the tasks on domain adaptation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.results import Row
from newshelf.evaluation.plots import project
from newshelf.report.plots import MUTED, new_figure, save

_BETTER, _MARKERS = "#d9622b", ("o", "x")
_C = 10.0
"""Inverse of the probe's L2 penalty, on features of unit length."""
_PER_DOMAIN = 400


def method_name(method: str) -> str:
    """Return the usual name of an entry of ``METHODS``."""
    names = {"source-only": "source only, same network", "adabn": "AdaBN"}
    return names.get(method, method.upper())


def linear_probe(features: Tensor, target: Tensor, asked: Tensor) -> Tensor:
    """Return ``(M,)`` classes of ``(M, F)`` rows by logistic regression on unit vectors."""
    model = LogisticRegression(C=_C, max_iter=1000)
    model.fit(normalize(features).numpy(), target.numpy())
    return torch.from_numpy(model.predict(normalize(asked).numpy()))


def draw_rows(rows: Sequence[Row], path: Path, title: str, goal: float | None = None) -> None:
    """Draw a bar per row with its spread; baselines are grey, the goal is a dashed line."""
    figure = new_figure(8.0, 1.3 + 0.36 * len(rows))
    panel = figure.subplots()
    values = [100 * row.mean for row in rows]
    bars = panel.barh(
        [row.method for row in rows],
        values,
        xerr=[100 * row.spread for row in rows],
        error_kw={"ecolor": "#444444", "elinewidth": 1, "capsize": 2},
        color=[MUTED if row.baseline else _BETTER for row in rows],
    )
    panel.bar_label(bars, fmt="%.1f", padding=4, fontsize=9)
    if goal is not None:
        panel.axvline(100 * goal, color="#444444", linestyle="--", linewidth=1)
    panel.invert_yaxis()
    low, high = min(values), max(values)
    panel.set_xlim(max(0.0, low - 0.6 * (high - low) - 2), high + 0.2 * (high - low) + 1)
    panel.set_xlabel("accuracy, %")
    panel.set_title(title, fontsize=11)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def draw_table(table: Mapping[str, Mapping[str, float]], path: Path, title: str) -> None:
    """Draw a heat map of accuracies in percent: a row per method, a column per pair."""
    names, columns = list(table), list(next(iter(table.values())))
    values = np.array([[100 * table[name][column] for column in columns] for name in names])
    figure = new_figure(1.8 + 0.7 * len(columns), 1.4 + 0.45 * len(names))
    panel = figure.subplots()
    panel.imshow(values, cmap="RdYlGn", vmin=85, vmax=100, aspect="auto")
    for line, column in np.ndindex(values.shape):
        panel.text(
            column, line, f"{values[line, column]:.1f}", ha="center", va="center", fontsize=8
        )
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(names)), names)
    panel.set_title(title, fontsize=11)
    save(figure, path)


def draw_domains(
    panels: Mapping[str, tuple[Tensor, Tensor]],
    labels: tuple[Tensor, Tensor],
    classes: Sequence[str],
    domains: tuple[str, str],
    path: Path,
) -> None:
    """Draw t-SNE maps side by side, coloured by class, marked by domain.

    ``panels`` have the source's and the target's embeddings, ``(N, H)`` and ``(M, H)``; ``labels``
    give the colours alone.
    """
    chosen = [
        torch.linspace(0, len(label) - 1, min(_PER_DOMAIN, len(label))).long() for label in labels
    ]
    figure = new_figure(6.5 * len(panels), 6.8)
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for panel, (title, both) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        rows = [table[index] for table, index in zip(both, chosen, strict=True)]
        places = project(torch.cat(rows).numpy())
        start = 0
        for domain, (index, label, marker) in enumerate(zip(chosen, labels, _MARKERS, strict=True)):
            here = places[start : start + len(index)]
            start += len(index)
            for number, name in enumerate(classes):
                mine = (label[index] == number).numpy()
                shown = name if domain == 0 and panel.get_subplotspec().is_first_col() else None
                panel.scatter(
                    *here[mine].T,
                    color=colours[number % len(colours)],
                    marker=marker,
                    s=16,
                    linewidths=1,
                    label=shown,
                )
        panel.set_title(f"{title} (o {domains[0]}, x {domains[1]})", fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.legend(loc="outside lower center", ncols=6, fontsize=9)
    save(figure, path)
