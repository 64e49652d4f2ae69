"""Tuning of the image tower itself, before anything is learned on top of it."""

from collections.abc import Callable

import torch

from newshelf.catalog import Catalog
from newshelf.config import Settings
from newshelf.nn.encoder import Encoder
from newshelf.transfer.labels import UNLABELLED, HeadLabels
from newshelf.transfer.pictures import TowerSettings, read_pictures, tune_tower
from newshelf.transfer.run import Run

__all__ = ["tower_tuning"]


def tower_tuning(
    catalog: Catalog, labels: HeadLabels | None, settings: Settings, run: Run
) -> Callable[[Encoder], None] | None:
    """What ``build_backbone`` does to the loaded towers; None leaves them as they are.

    Args:
        catalog: its pictures.
        labels: of the source category; without them there is nothing to tune on.
        settings: ``[tower]``.
        run: seed and kept progress.
    """
    mode = settings.tower.mode
    if mode == "heads-only":
        return None
    if labels is None:
        run.tell("no source types to tune the image tower on: it stays as it is")
        return None

    def tune(encoder: Encoder) -> None:
        tower, spec = encoder.image_tower, encoder.spec.image
        if tower is None or spec is None:
            run.tell("no picture to tune the image tower on")
            return
        size = settings.tower.size
        labelled = torch.nonzero(labels.target != UNLABELLED).flatten()
        rows = [int(row) for row in labelled if catalog.image_path(int(row)) is not None]
        pictures = read_pictures(catalog, rows, size, run.console)
        # The embedding is made of the pooled output, so that is what must tell types apart.
        tuned = TowerSettings(
            mode=mode, stage=-1, grids=(1,), **settings.tower.model_dump(exclude={"mode"})
        )
        target = labels.target[pictures.rows]
        classes, compact = torch.unique(target, return_inverse=True)
        names = tuple(labels.classes[int(value)] for value in classes)
        tune_tower("tower", tower, spec, pictures, compact, names, tuned, run)

    return tune
