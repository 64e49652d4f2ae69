"""Classes and targets of the heads, read from a catalogue's columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels, split_values
from newshelf.errors import TrainingError
from newshelf.nn.spec import HEADS, HeadName

UNLABELLED = -1
MIN_PER_CLASS = 4
_MAX_CLASSES = 200
_RICH = 12
"""Products that make a type rich, where a catalogue has a single first level."""


@dataclass(frozen=True)
class Categories:
    """Masks of the source and target products; ``(N,)`` bool each."""

    source_name: str
    source: Tensor
    target_name: str
    target: Tensor


@dataclass(frozen=True)
class HeadLabels:
    """Class names, and for each of the N products its class, or -1 for unlabelled."""

    classes: tuple[str, ...]
    target: Tensor


def choose_categories(
    catalog: Catalog, source: str | tuple[str, ...], group: str = ""
) -> Categories | None:
    """Split the products into a source and a target category.

    ``auto`` takes the first level of ``product_type`` with the most products. Where all
    share one first level, the source is the types with many products, the target those
    with few. With a ``group``, the target is the products with this value in the column
    ``group``, and the source all others.

    Returns:
        None when no product has a type.

    Raises:
        TrainingError: ``source`` is no first level of this catalogue, or names all of several;
            or no product with a type is in ``group``, or all are.
    """
    levels = [category_levels(product.product_type) for product in catalog.products()]
    tops = Counter(level[0] for level in levels if level)
    if not tops:
        return None
    typed = torch.tensor([bool(level) for level in levels])
    if group:
        cells = catalog.items.get("group", [])
        inside = torch.tensor([str(cell) == group for cell in cells] or [False]) & typed
        if (count := int(inside.sum())) in {0, int(typed.sum())}:
            raise TrainingError(
                f"[finetune] target_group = {group!r}: of the products with a type, {count} have "
                "this value in the column group; some must have it, and others must not"
            )
        return Categories("other groups", typed & ~inside, f"group {group}", inside)
    names = {source} if isinstance(source, str) else set(source)
    if source == "auto":
        names = {tops.most_common(1)[0][0]}
    if not names or names - tops.keys() or len(names) == len(tops) > 1:
        raise TrainingError(
            f"[finetune] source = {source!r}: this catalogue has {', '.join(sorted(tops))}, of "
            "which one at least must remain as the target"
        )
    if len(tops) == 1:
        sizes = Counter(levels)
        rich = torch.tensor([bool(level) and sizes[level] >= _RICH for level in levels])
        return Categories("rich types", rich, "poor types", typed & ~rich)
    is_source = torch.tensor([bool(level) and level[0] in names for level in levels])
    is_target = torch.tensor([bool(level) and level[0] not in names for level in levels])
    others = ", ".join(sorted(tops.keys() - names))
    return Categories(", ".join(sorted(names)), is_source, others, is_target)


def head_labels(catalog: Catalog, categories: Categories | None) -> dict[HeadName, HeadLabels]:
    """Classes and targets of every head; a head with fewer than two classes is left out."""
    labels = all_labels(catalog, categories)
    return {head: label for head, label in labels.items() if len(label.classes) > 1}


def all_labels(catalog: Catalog, categories: Categories | None) -> dict[HeadName, HeadLabels]:
    """Classes and targets of every head, also of those with nothing to tell apart."""
    products = catalog.products()
    types = [" > ".join(category_levels(product.product_type)) for product in products]
    values: dict[HeadName, Sequence[str]] = {
        "color": [_first(product.color) for product in products],
        "material": [_first(product.material) for product in products],
    }
    if categories is not None:
        values["source_type"] = _where(types, categories.source)
        values["target_type"] = _where(types, categories.target)
    return {head: _encode(values[head]) for head in HEADS if head in values}


def test_size(rows: int) -> int:
    """Return the number of a class's ``rows`` held out for testing: a quarter."""
    return max(1, rows // 4)


def few_shots(target: Tensor, shots: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return rows to learn from and rows to test on: a quarter of each class is tested.

    ``target`` is ``(N,)`` int64, -1 for unlabelled. At most ``shots`` rows of a class are learned
    from.
    """
    train: list[int] = []
    test: list[int] = []
    for value in range(int(target.max()) + 1):
        rows = generator.permutation(np.flatnonzero(target.numpy() == value))
        held = test_size(len(rows))
        test.extend(rows[:held])
        train.extend(rows[held : held + shots])
    return torch.tensor(train, dtype=torch.int64), torch.tensor(test, dtype=torch.int64)


def class_weights(target: Tensor, classes: int, balance: float = 1.0) -> Tensor:
    """``(classes,)``: n_c^-balance, of mean 1 over the labelled rows; 1 for an absent class."""
    counts = torch.bincount(target[target != UNLABELLED], minlength=classes).float()
    weights = counts.clamp(min=1) ** -balance
    mean = (weights * counts).sum() / counts.sum().clamp(min=1)
    return torch.where(counts > 0, weights / mean.clamp(min=1e-12), 1.0)


def _first(value: str | None) -> str:
    parts = split_values(value)
    return parts[0] if parts else ""


def _where(values: Sequence[str], mask: Tensor) -> list[str]:
    return [value if keep else "" for value, keep in zip(values, mask.tolist(), strict=True)]


def _encode(values: Sequence[str]) -> HeadLabels:
    counts = Counter(value for value in values if value)
    common = [value for value, count in counts.most_common(_MAX_CLASSES) if count >= MIN_PER_CLASS]
    classes = tuple(sorted(common))
    number = {value: index for index, value in enumerate(classes)}
    target = [number.get(value, UNLABELLED) for value in values]
    return HeadLabels(classes, torch.tensor(target, dtype=torch.int64))


_COLUMNS = {
    "source_type": "product_type",
    "target_type": "product_type of the target",
    "color": "color",
    "material": "material",
}


def label_notes(catalog: Catalog, categories: Categories | None, shots: int) -> list[str]:
    """Return a line per head that cannot be trained, and one on classes with few labels.

    ``shots`` is the number of labels per class that the target's head can use.
    """
    labels = all_labels(catalog, categories)
    notes = [
        f"{_COLUMNS[head]}: all labelled products are {label.classes[0]!r}, and one class is "
        f"nothing to tell apart: no head is trained on it; name at least two, of "
        f"{MIN_PER_CLASS} products each"
        for head, label in labels.items()
        if len(label.classes) == 1
    ]
    if not head_labels(catalog, categories):
        notes.append(
            "no column has two classes to learn from: the embedding stays what the towers see, "
            "and no labels are predicted; product_type, color or material would teach it"
        )
    target = labels.get("target_type")
    if target is None or len(target.classes) <= 1:
        return notes
    counts = Counter(value for value in target.target.tolist() if value >= 0)
    left = {target.classes[value]: n - test_size(n) for value, n in counts.items()}
    few = {name: count for name, count in left.items() if count < shots}
    if few:
        fewest = min(few, key=lambda name: (few[name], name))
        notes.append(
            f"product_type of the target: {len(few)} of {len(left)} classes have fewer labelled "
            f"products to learn from than [finetune] target_shots = {shots}; the fewest, "
            f"{few[fewest]}, has {fewest!r}: those are used"
        )
    return notes
