"""Stage features compared with a naive loop."""

import numpy as np
import pytest
import timm
import torch

from benchmarks.methods.tower_stages import StageSettings, stage_features
from newshelf.errors import TrainingError
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput

HALF = (0.5, 0.5, 0.5)
SPEC = ImageInput(architecture="test_resnet", features=96, size=32, mean=HALF, std=HALF)


@pytest.fixture(scope="module")
def tower() -> ImageTower:
    torch.manual_seed(0)
    return ImageTower(SPEC).eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 255, (3, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()


def test_cells_are_the_means_of_their_part_of_the_map(tower, pixels):
    settings = StageSettings(stages=(-3,), grids=(1, 2), sizes=(64,), bf16=False)
    got = stage_features(tower, SPEC, pixels, settings).numpy()
    net = tower.backbone
    x = (pixels.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
        maps = net.layer3(net.layer2(net.layer1(x))).numpy()
    side = maps.shape[-1] // 2
    for row in range(3):
        whole = maps[row].mean(axis=(1, 2))
        cells = [
            [maps[row, c, i * side : (i + 1) * side, j * side : (j + 1) * side].mean()]
            for c in range(maps.shape[1])
            for i in (0, 1)
            for j in (0, 1)
        ]
        parts = [whole, np.array(cells)[:, 0]]
        naive = np.concatenate([part / np.linalg.norm(part) for part in parts])
        np.testing.assert_allclose(got[row], naive, atol=1e-4)


def test_the_last_stage_is_the_towers_own_output(tower, pixels):
    settings = StageSettings(stages=(-1,), grids=(1, 2), sizes=(64,), bf16=False)
    got = stage_features(tower, SPEC, pixels, settings)
    with torch.no_grad():
        own = tower((pixels.float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(got, torch.nn.functional.normalize(own), atol=1e-5, rtol=1e-4)


def test_sizes_stand_side_by_side(tower, pixels):
    both = StageSettings(stages=(-2,), grids=(1,), sizes=(64, 32))
    one = both.model_copy(update={"sizes": (32,)})
    together = stage_features(tower, SPEC, pixels, both)
    alone = stage_features(tower, SPEC, pixels, one)
    assert torch.equal(together[:, alone.shape[1] :], alone)


def test_a_stage_the_tower_lacks_is_refused(tower, pixels):
    with pytest.raises(TrainingError, match="stage 9: the tower has 6"):
        stage_features(tower, SPEC, pixels, StageSettings(stages=(9,)))


def test_an_unknown_tower_is_refused(pixels):
    spec = SPEC.model_copy(update={"architecture": "test_vit"})
    assert timm.is_model("test_vit")
    with pytest.raises(TrainingError, match="stage by stage"):
        stage_features(ImageTower(spec), spec, pixels, StageSettings())
