"""Views of a picture, and the cache of stage features."""

import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from benchmarks.methods.tower_stages import StageSettings
from benchmarks.transfer import tower_features as module
from benchmarks.transfer.tower_features import (
    View,
    cached_stage_features,
    view_features,
    whole_pictures,
)
from newshelf.catalog.catalog import read_catalog
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput

HALF = (0.5, 0.5, 0.5)
SPEC = ImageInput(architecture="test_resnet", features=96, size=32, mean=HALF, std=HALF)
POOLED = StageSettings(stages=(-1,), grids=(1,), sizes=(32,), bf16=False)


@pytest.fixture(scope="module")
def tower() -> ImageTower:
    torch.manual_seed(0)
    return ImageTower(SPEC).eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 255, (3, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()


def test_each_view_is_the_towers_direction_for_it(tower, pixels, tmp_path):
    got = view_features(tower, SPEC, pixels, [View(64), View(64, mirrored=True)], tmp_path)
    with torch.no_grad():
        both = [tower((shown.float() / 255 - 0.5) / 0.5) for shown in (pixels, pixels.flip(3))]
    naive = normalize(torch.stack(both), dim=2)
    # Read in bfloat16.
    assert (got * naive).sum(dim=2).min() > 0.999
    assert not torch.allclose(got[0], got[1], atol=1e-3)


def test_what_is_known_is_not_computed_again(tower, pixels, tmp_path, monkeypatch):
    first = cached_stage_features(tower, SPEC, pixels, POOLED, tmp_path)
    calls = []

    def counted(*args):
        calls.append(args)
        return first + 1

    monkeypatch.setattr(module, "stage_features", counted)
    again = cached_stage_features(tower, SPEC, pixels, POOLED, tmp_path)
    assert torch.equal(first, again)
    assert not calls


def test_other_pixels_weights_or_settings_are_computed_again(tower, pixels, tmp_path):
    def count() -> int:
        return len(list(tmp_path.glob("*.safetensors")))

    cached_stage_features(tower, SPEC, pixels, POOLED, tmp_path)
    cached_stage_features(tower, SPEC, pixels.flip(0), POOLED, tmp_path)
    assert count() == 2
    smaller = POOLED.model_copy(update={"sizes": (64,)})
    cached_stage_features(tower, SPEC, pixels, smaller, tmp_path)
    assert count() == 3
    torch.manual_seed(1)
    cached_stage_features(ImageTower(SPEC).eval(), SPEC, pixels, POOLED, tmp_path)
    assert count() == 4


def test_a_whole_picture_keeps_its_edges(tmp_path):
    tall = Image.new("RGB", (30, 60), (0, 0, 200))
    tall.paste((200, 0, 0), (0, 0, 30, 10))
    tall.save(tmp_path / "tall.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "tall.png").read_bytes()[:40])
    names = ["torn.png", None, "tall.png"]
    rows = [{"id": f"i{n}", "title": "x", "image_link": name} for n, name in enumerate(names)]
    pd.DataFrame(rows).to_csv(tmp_path / "items.csv", index=False)
    whole = whole_pictures(read_catalog(tmp_path), [0, 1, 2], 24)
    assert whole.rows.tolist() == [2]
    assert whole.pixels.shape == (1, 3, 24, 24)
    assert whole.pixels[0, 0, 0].min() > 150
    assert whole.pixels[0, 0, -1].max() < 50
