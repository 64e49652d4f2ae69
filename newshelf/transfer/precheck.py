"""What a catalogue lacks for training, told before any time is spent on it."""

from collections import Counter

import numpy as np

from newshelf.catalog import Catalog
from newshelf.evaluation.interactions import Interactions, read_interactions
from newshelf.transfer.labels import (
    MIN_PER_CLASS,
    Categories,
    HeadLabels,
    all_labels,
    head_labels,
    test_size,
)

__all__ = ["label_notes", "usable_interactions"]

_MIN_SEQUENCES = 2
_COLUMNS = {
    "source_type": "product_type",
    "target_type": "product_type of the target",
    "color": "color",
    "material": "material",
}


def label_notes(catalog: Catalog, categories: Categories | None, shots: int) -> list[str]:
    """A line for each head that cannot be trained, and for classes poorer than ``shots``."""
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
    if target is not None and len(target.classes) > 1:
        notes += _poor_classes(target, shots)
    return notes


def _poor_classes(target: HeadLabels, shots: int) -> list[str]:
    counts = Counter(value for value in target.target.tolist() if value >= 0)
    left = {target.classes[value]: n - test_size(n) for value, n in counts.items()}
    poor = {name: count for name, count in left.items() if count < shots}
    if not poor:
        return []
    fewest = min(poor, key=lambda name: (poor[name], name))
    return [
        f"product_type of the target: {len(poor)} of {len(left)} classes have fewer labelled "
        f"products to learn from than [finetune] target_shots = {shots}; the fewest, "
        f"{poor[fewest]}, has {fewest!r}: those are used"
    ]


def usable_interactions(catalog: Catalog) -> tuple[Interactions | None, str]:
    """What the scorer can learn from, or None and the reason."""
    served = "content neighbours will be served"
    tables = (catalog.events, catalog.baskets)
    if all(table is None or table.empty for table in tables):
        why = "; ".join(catalog.report.unusable()) or "no events and no baskets"
        return None, f"{why}: {served}"
    interactions = read_interactions(catalog)
    whose = "baskets" if interactions.timestamps is None else "shoppers"
    useful = sum(len(np.unique(sequence)) > 1 for sequence in interactions.sequences)
    if useful >= _MIN_SEQUENCES:
        return interactions, ""
    return None, (
        f"{useful} of {len(interactions.sequences)} {whose} have two different products, and the "
        f"scorer needs at least {_MIN_SEQUENCES} of them to learn what goes together: {served}; "
        f"bring more {'events' if whose == 'shoppers' else whose}"
    )
