"""Studio pictures of fashion → photographs that people took of their clothes."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from torch import Tensor

from benchmarks.transfer.context import Context
from benchmarks.transfer.domains import draw_domains, draw_rows, linear_probe, method_name
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.transfer.adapt import DEFAULT, METHODS, Labelled, Unlabelled, adapt
from newshelf.transfer.run import Run

__all__ = ["SOURCE_CLASSES", "TARGET_CLASSES", "run"]

SOURCE_CLASSES: dict[str, tuple[str, ...]] = {
    "dress": ("Dresses",),
    "hat": ("Caps", "Hat"),
    "hoodie": ("Sweatshirts",),
    "outwear": ("Jackets", "Rain Jacket"),
    "pants": ("Trousers", "Jeans", "Track Pants"),
    "shirt": ("Shirts",),
    "shoes": ("Casual Shoes", "Sports Shoes", "Formal Shoes", "Flats", "Heels"),
    "shorts": ("Shorts",),
    "skirt": ("Skirts",),
    "t-shirt": ("Tshirts",),
    "top": ("Tops",),
    "undershirt": ("Innerwear Vests",),
}
"""Shared class → last level of the product type in ``fashion``."""
TARGET_CLASSES: dict[str, tuple[str, ...]] = {
    "dress": ("Dress",),
    "hat": ("Hat",),
    "hoodie": ("Hoodie",),
    "outwear": ("Outwear",),
    "pants": ("Pants",),
    "shirt": ("Shirt",),
    "shoes": ("Shoes",),
    "shorts": ("Shorts",),
    "skirt": ("Skirt",),
    "t-shirt": ("T-Shirt", "Polo"),
    "top": ("Top", "Blouse"),
    "undershirt": ("Undershirt",),
}
"""The same in ``clothing-wild``. Fashion files polos under Tshirts; of blazers it has 8, of
long sleeves and bodies none, so these three are left out."""

_ACCURACY = "accuracy"
_F1 = "macro-F1"
_SHARE = "share of the gap closed"
_PROBE = "source only, linear probe"
_CEILING = "trained on the target's labels (ceiling)"
_SAME = method_name("source-only")
_GOAL = 0.5
_TEST = 0.4


def run(context: Context) -> TaskResult:
    """Every method, between what the source alone and the target's own labels give."""
    studio, wild = context.catalog("fashion"), context.catalog("clothing-wild")
    ours, our_class = _shared(studio, SOURCE_CLASSES)
    theirs, their_class = _shared(wild, TARGET_CLASSES)
    source = Labelled(context.backbone(studio).table.image[ours], our_class)
    target = context.backbone(wild).table.image[theirs]
    kept_back = context.kept_back_catalog("clothing-wild")
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    maps: dict[str, tuple[Tensor, Tensor]] = {}
    labels = our_class, their_class

    for seed in context.seeds:
        if kept_back is None:
            learn, test = _split(their_class, seed)
            unlabelled, learn_class = Unlabelled(target[learn]), their_class[learn]
            asked, truth = target[test], their_class[test]
        else:
            unlabelled, learn_class = Unlabelled(target), their_class
            rows, truth = _shared(kept_back, TARGET_CLASSES)
            asked = context.backbone(kept_back).table.image[rows]
        found = {
            _PROBE: linear_probe(source.features, source.target, asked),
            _CEILING: linear_probe(unlabelled.features, learn_class, asked),
        }
        for method in METHODS:
            model = adapt(source, unlabelled, Run(seed, context.console, quiet=True), method=method)
            name = method_name(method)
            found[name] = model.predict(asked)
            if seed == context.seeds[0] and method in {"source-only", DEFAULT}:
                maps[name] = model.embed(source.features), model.embed(asked)
                labels = our_class, truth
        accuracies = {
            name: float((predicted == truth).float().mean()) for name, predicted in found.items()
        }
        gap = accuracies[_CEILING] - accuracies[_PROBE]
        for name, predicted in found.items():
            values[_ACCURACY][name].append(accuracies[name])
            values[_F1][name].append(
                float(f1_score(truth.numpy(), predicted.numpy(), average="macro"))
            )
            values[_SHARE][name].append((accuracies[name] - accuracies[_PROBE]) / gap)

    rows_ = _rows(values)
    figures = {
        "Accuracy by method between the source's labels and the target's": context.figures
        / "wild-methods.png",
        "The bottleneck without and with adaptation (t-SNE), coloured by class": context.figures
        / "wild-map.png",
    }
    bars, maps_figure = figures.values()
    draw_rows(
        [
            Row(_ACCURACY, name, found, baseline=name in {_PROBE, _SAME, _CEILING})
            for name, found in values[_ACCURACY].items()
        ],
        bars,
        "Studio → people's photographs",
    )
    draw_domains(maps, labels, list(SOURCE_CLASSES), ("studio", "wild"), maps_figure)
    return TaskResult(
        task="wild",
        title="Fashion (studio) → clothing-wild, shared classes",
        protocol=_protocol(len(ours), len(theirs), kept_back is not None),
        rows=rows_,
        goals=[Goal(_SHARE, _GOAL)],
        notes=_notes(values[_ACCURACY]),
        figures=figures,
    )


def _shared(catalog: Catalog, classes: Mapping[str, tuple[str, ...]]) -> tuple[Tensor, Tensor]:
    """Rows of the shared classes, ``(n,)``, and the class of each, ``(n,)`` int64."""
    number = {name: at for at, names in enumerate(classes.values()) for name in names}
    rows, target = [], []
    for row, product in enumerate(catalog.products()):
        levels = category_levels(product.product_type)
        if levels and levels[-1] in number and catalog.image_path(row) is not None:
            # Shoes are in fashion's first level Footwear, and caps in Accessories: no two
            # mapped types share a last level.
            rows.append(row)
            target.append(number[levels[-1]])
    return torch.tensor(rows), torch.tensor(target)


def _split(target: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    learn, test = train_test_split(
        range(len(target)), test_size=_TEST, stratify=target.tolist(), random_state=seed
    )
    return torch.tensor(learn), torch.tensor(test)


def _rows(values: Mapping[str, Mapping[str, list[float]]]) -> list[Row]:
    """The ceiling is said in the notes: it is neither a baseline nor a method."""
    return [
        Row(measure, name, found, baseline=name in {_PROBE, _SAME})
        for measure, by_name in values.items()
        for name, found in by_name.items()
        if name != _CEILING
    ]


def _protocol(ours: int, theirs: int, kept_back: bool) -> str:
    mapping = "; ".join(
        f"{name}: {', '.join(SOURCE_CLASSES[name])} → {', '.join(TARGET_CLASSES[name])}"
        for name in SOURCE_CLASSES
    )
    tested = (
        "tested on the part that was kept back"
        if kept_back
        else "split by seed and class: 60 % without labels, tested on the other 40 %"
    )
    return (
        f"{ours} labelled studio pictures of 60 × 80 pixels; {theirs} photographs that people "
        f"took of their own clothes, {tested}, which no method sees while it learns. The share of "
        "the gap is (accuracy - source-only probe) / (probe on the labels of the 60 % - "
        "source-only probe). Settings are the library's defaults, the same as for "
        f"Office-Caltech-10. Shared classes (fashion → clothing-wild): {mapping}."
    )


def _notes(accuracy: Mapping[str, list[float]]) -> list[str]:
    means = {name: sum(found) / len(found) for name, found in accuracy.items()}
    worse = [name for name in means if means[name] < means[_PROBE] and name != _PROBE]
    return [
        f"Ceiling: a linear probe on the labels of the target's own learning part reaches "
        f"{100 * means[_CEILING]:.1f} %, the source-only probe {100 * means[_PROBE]:.1f} %.",
        *([f"Worse than the source-only probe: {', '.join(worse)}."] if worse else []),
        "Lengths of training were looked at here, with two seeds at 25 and 40 epochs and three at "
        "30: MCC lay between 70 and 73 %, best at 25 to 30; the default of 30 serves "
        "Office-Caltech-10 as well. Normalising by the target's own mean and variance in the end "
        "gained 0.9–1.8 points at 40 epochs.",
        "Tried, and left out: photographs reduced to 60 × 80 first (the ceiling falls to 77 %); "
        "studio pictures cut out and laid on backgrounds of the other photographs (source only "
        "53 %, with MCC no better than without); rounds of pseudo-labels, which are 67 % right "
        "when all are taken (no gain over MCC); MCC's temperature and weight changed (worse).",
    ]
