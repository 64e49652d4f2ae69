"""Cached features of the packaged image tower: inner stages, and views of a picture.

A mirrored or enlarged picture shows the same product, so the average over views is a better
feature (Krizhevsky et al., 2012, averaged ten crops). Each view costs a pass of the tower.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.methods.tower_stages import StageSettings, stage_features
from newshelf.catalog.catalog import Catalog
from newshelf.errors import BadPicture, TooLarge
from newshelf.files import write_aside
from newshelf.nn.encoder import ImageTower
from newshelf.nn.inputs import decode_rgb
from newshelf.nn.spec import ImageInput
from newshelf.training.picture_data import PictureSet


class View(NamedTuple):
    """Size and orientation in which the tower reads a picture."""

    size: int
    """Height and width in pixels."""
    mirrored: bool = False


def view_features(
    tower: ImageTower,
    spec: ImageInput,
    pixels: Tensor,
    views: Sequence[View],
    cache: Path,
) -> Tensor:
    """Return the tower's features of each view: ``(views, n, features)`` float32, of unit length.

    ``pixels`` are ``(n, 3, S, S)`` uint8. The tower is put into ``eval`` mode.
    """
    features = []
    for size, mirrored in views:
        view = pixels.flip(-1) if mirrored else pixels
        pooled = StageSettings(stages=(-1,), grids=(1,), sizes=(size,))
        features.append(cached_stage_features(tower, spec, view, pooled, cache))
    return torch.stack(features)


def cached_stage_features(
    tower: ImageTower, spec: ImageInput, pixels: Tensor, settings: StageSettings, cache: Path
) -> Tensor:
    """Return ``stage_features``, cached under a digest of pixels, weights and settings."""
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


def whole_pictures(catalog: Catalog, rows: Sequence[int], size: int) -> PictureSet:
    """Read the pictures of ``rows``, squeezed into a square; damaged and absent ones are left out.

    Serving crops the centre square instead.
    """
    kept, pixels = [], []
    for row in rows:
        path = catalog.image_path(row)
        if path is None:
            continue
        try:
            picture = decode_rgb(path.read_bytes())
        except (BadPicture, TooLarge):
            continue
        square = picture.resize((size, size), Image.Resampling.BILINEAR)
        pixels.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
        kept.append(row)
    return PictureSet(torch.tensor(kept), torch.stack(pixels))
