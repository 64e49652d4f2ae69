"""What a report shows of a model besides its rankings: few labels, and pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from newshelf.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.config import Settings
from newshelf.evaluation.few_shot import FewShot, few_shot
from newshelf.evaluation.illustrate import Shelf, draw_model
from newshelf.evaluation.page import Picture
from newshelf.files import read_json
from newshelf.nn.checkpoint import Checkpoint
from newshelf.transfer.features import FeatureTable
from newshelf.transfer.labels import choose_categories

__all__ = ["Portrait", "portray"]


@dataclass(frozen=True, eq=False)
class Portrait:
    """A model seen from outside."""

    shots: FewShot | None
    pictures: list[Picture]
    notes: list[str]
    """What could not be shown, and why."""


def portray(
    catalog: Catalog,
    settings: Settings,
    checkpoint: Checkpoint,
    table: FeatureTable,
    embeddings: Tensor,
    folder: Path,
) -> Portrait:
    """Probe the target's types, and draw curves, map and neighbours into ``folder``.

    Only products that the encoder was not fine-tuned on are probed: of the others it has
    seen the labels.

    Args:
        catalog: N products.
        settings: which of them were the source.
        checkpoint: the model.
        table: N rows of the frozen towers' features.
        embeddings: ``(N, 512)`` float32 of the model.
        folder: exists; gets the pictures.
    """
    kinds = [category_levels(product.product_type) for product in catalog.products()]
    categories = choose_categories(catalog, settings.finetune.source)
    target = np.zeros(len(kinds), dtype=np.bool_)
    if categories is not None:
        target = categories.target.numpy()
    before, after = table.content(), embeddings.numpy()
    new = np.flatnonzero(target).tolist()
    shots = few_shot(
        {"frozen towers": before[new], "trained encoder": after[new]},
        [" > ".join(kinds[row]) or None for row in new],
        seed=settings.seed,
    )
    shelf = Shelf(
        titles=[str(t) if isinstance(t, str) else "" for t in catalog.items["title"]],
        pictures=[catalog.image_path(row) for row in range(len(kinds))],
        kinds=kinds,
        before=before,
        after=after,
        new=target,
    )
    training = read_json(checkpoint.directory / "training.json")
    notes = []
    if shots is None:
        notes.append(
            "No accuracy over shots: it needs two product types, each of six products or "
            "more, that the encoder was not fine-tuned on."
        )
    pictures = draw_model(shelf, training, shots, folder, settings.seed)
    return Portrait(shots, pictures, notes)
