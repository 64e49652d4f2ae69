"""Office-Caltech-10: ten classes in four domains, each adapted to each other one."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.methods.adapt.projection import Projection
from benchmarks.methods.adapt.source_only import DEFAULT, METHODS
from benchmarks.records import Values
from benchmarks.results import Goal, Row, TaskResult
from benchmarks.transfer.command import TransferContext
from benchmarks.transfer.domains import (
    draw_domains,
    draw_rows,
    draw_table,
    linear_probe,
    method_name,
)
from benchmarks.transfer.tower_features import View, view_features
from newshelf.catalog.catalog import Catalog
from newshelf.config import ImageTowerSettings
from newshelf.nn.weights import load_image_tower
from newshelf.training.adaptation import AdaptSettings, adapt
from newshelf.training.picture_data import read_pictures
from newshelf.training.run import Run

_DATA = "office-caltech10"
_MEASURE = "accuracy, mean of the 12 pairs"
_PROBE = "source only, linear probe"
_MAPPED = ("amazon", "webcam")
_GOAL = 0.965
_VIEWED = ", views"
_VIEWS = (View(224, mirrored=True), View(288))
"""Views in addition to the plain one, which is in the catalogue's features."""
_SETTINGS = AdaptSettings()
_VIEW_METHODS = ("source-only", DEFAULT)
_WORSE = 0.005
"""A method hurts if it is below the probe by more than this."""
_PROTOCOL = """All labelled pictures of one domain, all pictures of another without labels
(transductive, as published), accuracy on the latter; mean of the 12 ordered pairs of
amazon (a), caltech10 (c), dslr (d) and webcam (w). All methods read frozen features of the
packaged image tower: plain rows of the picture as it is, rows with `views` the mean direction of
the picture, its mirror image and the picture at 288 pixels. Settings are those of the methods'
papers (weights, ramps, temperature) and the library's defaults: {steps} steps of {rows} rows a
domain at rate {rate:g} for every method. The task `wild` chose them, and {judged} as the method
that the goal is judged by, on photographs that no seed of it tests. No label of this task's
pictures chose anything."""


def run(context: TransferContext) -> TaskResult:
    """Compare every method on every pair of domains."""
    catalog = context.catalog(_DATA)
    target = torch.tensor(pd.Categorical(catalog.items["product_type"]).codes.copy()).long()
    classes = sorted(catalog.items["product_type"].unique())
    domain = catalog.items["domain"].to_numpy()
    of = {name: torch.from_numpy(domain == name).nonzero()[:, 0] for name in sorted(set(domain))}
    plain = context.backbone(catalog).table.image
    inputs = {
        "": (plain, METHODS),
        _VIEWED: (_viewed(context, catalog, plain), _VIEW_METHODS),
    }
    pairs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    for (suffix, (features, runs)), (ours, theirs) in product(inputs.items(), permutations(of, 2)):
        pair = f"{ours[0]}→{theirs[0]}"
        domains = _Pair(features[of[ours]], target[of[ours]], features[of[theirs]])
        truth = target[of[theirs]]
        for seed in context.seeds:
            measure = partial(_accuracies, domains, truth, runs, seed, context)
            found = context.measured(f"office-{ours}-{theirs}{suffix}", seed, measure)
            for name in (_PROBE, *map(method_name, runs)):
                accuracy = found[name]
                pairs[name + suffix][pair].append(accuracy)
        context.console.print(f"  {pair}{suffix}: {accuracy:.1%} ({name})")

    rows = []
    for name, by_pair in pairs.items():
        means = [sum(seed) / len(seed) for seed in zip(*by_pair.values(), strict=True)]
        rows.append(Row(_MEASURE, name, means, baseline=name.startswith("source only")))
    table = {
        name: {pair: sum(found) / len(found) for pair, found in by_pair.items()}
        for name, by_pair in pairs.items()
    }
    figures = {
        "Accuracy by method, mean of the 12 pairs; dashed: the goal": context.figures
        / "office-methods.png",
        "Accuracy by method and pair, mean of the seeds": context.figures / "office-pairs.png",
        f"The bottleneck for {_MAPPED[0]} → {_MAPPED[1]} without and with adaptation (t-SNE), "
        "coloured by class": context.figures / "office-map.png",
    }
    bars, pairs_figure, maps_figure = figures.values()
    draw_rows(rows, bars, "Office-Caltech-10", _GOAL)
    draw_table(table, pairs_figure, "Office-Caltech-10: source → target")
    labels = target[of[_MAPPED[0]]], target[of[_MAPPED[1]]]
    mapped = _Pair(plain[of[_MAPPED[0]]], labels[0], plain[of[_MAPPED[1]]])
    first = Run(context.seeds[0], context.console, quiet=True)
    maps = {method_name(method): mapped.adapted(method, first)[:2] for method in _VIEW_METHODS}
    draw_domains(maps, labels, classes, _MAPPED, maps_figure)
    return TaskResult(
        task="office",
        title="Office-Caltech-10: another domain without labels",
        protocol=_PROTOCOL.format(
            steps=_SETTINGS.epochs * _SETTINGS.steps,
            rows=_SETTINGS.batch_size,
            rate=_SETTINGS.learning_rate,
            judged=method_name(DEFAULT),
        ),
        rows=rows,
        goals=[Goal(_MEASURE, _GOAL, method=method_name(DEFAULT))],
        notes=_notes(table),
        figures=figures,
    )


def _viewed(context: TransferContext, catalog: Catalog, plain: Tensor) -> Tensor:
    """Return ``(N, F)`` sums of the views' directions, with equal weights of the sizes."""
    spec, tower = load_image_tower(context.settings.image or ImageTowerSettings())
    pictures = read_pictures(catalog, range(len(plain)), spec.size, context.console)
    mirror, large = view_features(
        tower, spec, pictures.pixels, _VIEWS, context.work / "views" / _DATA
    )
    small = normalize(normalize(plain[pictures.rows], dim=1) + mirror, dim=1)
    features = torch.zeros_like(plain)
    features[pictures.rows] = small + large
    return features


@dataclass(frozen=True)
class _Pair:
    """Features of two domains, and the classes of the first."""

    source: Tensor
    """``(N, F)`` float32."""
    target: Tensor
    """``(N,)`` int64."""
    unlabelled: Tensor
    """``(M, F)`` float32."""

    def adapted(self, method: str, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """Adapt; return the bottlenecks of both domains and ``(M, C)`` logits of the second."""
        projection = Projection(self.source, self.unlabelled)
        source, unlabelled = projection(self.source), projection(self.unlabelled)
        model = adapt(source, self.target, unlabelled, run, method=METHODS[method])
        return model(source)[0], *model(unlabelled)


def _accuracies(
    pair: _Pair, truth: Tensor, methods: Iterable[str], seed: int, context: TransferContext
) -> Values:
    """Return the accuracy by the name of the method."""
    predicted = {_PROBE: linear_probe(pair.source, pair.target, pair.unlabelled)}
    for method in methods:
        _, _, logits = pair.adapted(method, Run(seed, context.console, quiet=True))
        predicted[method_name(method)] = logits.argmax(dim=1)
    return {name: float((found == truth).float().mean()) for name, found in predicted.items()}


def _notes(table: dict[str, dict[str, float]]) -> list[str]:
    """Return notes: where each method hurts compared with the probe, and other attempts."""
    notes = []
    for name, by_pair in table.items():
        worse = [
            f"{pair} {100 * (accuracy - table[_PROBE][pair]):+.1f}"
            for pair, accuracy in by_pair.items()
            if accuracy < table[_PROBE][pair] - _WORSE
        ]
        if worse and name != _PROBE:
            notes.append(f"{name} hurts, against the linear probe, in points: {', '.join(worse)}.")
    return [
        *notes,
        "A probe trained on the target's own labels (5-fold) reaches 96.5 (a), 96.2 (c), 97.5 "
        "(d) and 98.6 % (w): little is left above the best method.",
        "Tried before on these pairs with their labels, and not used, because nothing here is "
        "left to test such a choice on: MCC with 1,200 steps of 32 rows at rate 0.01 (97.0 %), "
        "and selective pseudo-labelling in a discriminant subspace (Wang and Breckon, 2020; "
        "78–96 % depending on the width of the subspace).",
    ]
