"""The ways of decoding, judged by what the packaged image tower makes of drawn products."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from newshelf.catalog.catalog import read_catalog
from newshelf.config import ImageTowerSettings
from newshelf.nn.weights import load_image_tower
from newshelf.sample.build import draw_sample
from tests.decode_agreement import decode_agreement

GATE = 0.99
"""As for a precision at export."""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> list[bytes]:
    """Drawn products as JPEGs of 1200 × 900, which are decoded at a half."""
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    draw_sample(folder, products=60, shoppers=1)
    catalog = read_catalog(folder)
    pictures = []
    for row in range(24):
        with Image.open(catalog.image_path(row)) as picture:
            wide = picture.convert("RGB").resize((1200, 1200)).crop((0, 150, 1200, 1050))
        stream = io.BytesIO()
        wide.save(stream, "JPEG", quality=85)
        pictures.append(stream.getvalue())
    return pictures


def test_both_ways_of_serving_pass_the_gate(large):
    spec, tower = load_image_tower(ImageTowerSettings())

    def embed(images):
        with torch.inference_mode():
            return tower(torch.from_numpy(images)).numpy()

    agreement = decode_agreement(large, spec, embed)
    assert agreement.least() >= GATE
    assert agreement.cpu.min() >= GATE
    assert agreement.gpu.min() >= GATE
    # And they are two ways, not one.
    assert agreement.cpu.max() < 1


def test_a_way_that_changes_pictures_is_found_out(large):
    spec, _ = load_image_tower(ImageTowerSettings())
    seen = []

    def embed(images):
        seen.append(len(images))
        # The second call is the CPU's way: here it would give negatives.
        sign = -1 if len(seen) == 2 else 1
        return sign * np.ones((len(images), 4), dtype=np.float32)

    assert decode_agreement(large[:3], spec, embed).least() == pytest.approx(-1)
