"""One picture seen in several ways, and what a frozen tower makes of each.

A mirrored or enlarged picture shows the same thing: learn from every view, and average what
is said about them (Krizhevsky et al., 2012, averaged ten crops). Each view costs a pass of
the tower, and no training of it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from newshelf.errors import TrainingError
from newshelf.files import write_aside
from newshelf.nn.spec import ImageInput
from newshelf.nn.towers import ImageTower
from newshelf.transfer.pictures.settings import StageSettings
from newshelf.transfer.pictures.stage_features import stage_features

__all__ = ["View", "cached_stage_features", "view_features"]


class View(NamedTuple):
    """How a picture is shown to the tower."""

    size: int
    """Height and width in pixels."""
    mirrored: bool = False
    """Left and right exchanged."""


def view_features(
    tower: ImageTower,
    spec: ImageInput,
    pixels: Tensor,
    views: Sequence[View],
    cache: Path,
) -> Tensor:
    """What the tower makes of each view: ``(views, n, features)`` float32, of unit length.

    Args:
        tower: its pooled output is read; in ``eval`` mode after, its weights stay as they are.
        spec: its mean and standard deviation.
        pixels: ``(n, 3, S, S)`` uint8.
        views: at least one.
        cache: a folder; see :func:`cached_stage_features`.

    Raises:
        TrainingError: no view is given.
    """
    if not views:
        raise TrainingError("features of no view are asked for: give one View(size) or more")
    seen = []
    for size, mirrored in views:
        shown = pixels.flip(-1) if mirrored else pixels
        pooled = StageSettings(stages=(-1,), grids=(1,), sizes=(size,))
        seen.append(cached_stage_features(tower, spec, shown, pooled, cache))
    return torch.stack(seen)


def cached_stage_features(
    tower: ImageTower, spec: ImageInput, pixels: Tensor, settings: StageSettings, cache: Path
) -> Tensor:
    """``stage_features``, kept in ``cache`` under a digest of all that they follow from.

    Other pixels, weights or settings are computed and kept anew; nothing is ever removed.
    """
    digest = hashlib.sha256((spec.model_dump_json() + settings.model_dump_json()).encode())
    for name, tensor in (*tower.state_dict().items(), ("pixels", pixels)):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    path = cache / f"{digest.hexdigest()[:24]}.safetensors"
    if path.exists():
        return load_file(path)["rows"]
    rows = stage_features(tower, spec, pixels, settings)
    with write_aside(path) as aside:
        save_file({"rows": rows}, aside)
    return rows
