"""Pooled maps of a tower's stages compared with torch's own pooling."""

import pytest
import torch
from torch.nn import functional as F

from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.nn.tower_stages import PyramidPool

HALF = (0.5, 0.5, 0.5)
SPEC = ImageInput(architecture="test_resnet", features=96, size=64, mean=HALF, std=HALF)


@pytest.mark.parametrize("side", [1, 2, 5, 7, 9])
@pytest.mark.parametrize("grid", [1, 2, 3])
def test_the_cells_are_those_of_adaptive_pooling(side, grid):
    maps = torch.randn(2, 4, side, side + 1, generator=torch.Generator().manual_seed(side))
    expected = F.normalize(F.adaptive_avg_pool2d(maps, grid).flatten(1), dim=1)
    torch.testing.assert_close(PyramidPool((grid,))(maps), expected)


@torch.inference_mode()
def test_a_tower_appends_its_inner_stages_and_drops_them_again():
    torch.manual_seed(0)
    tower = ImageTower(SPEC).eval()
    image = torch.randn(2, 3, 64, 64)
    pooled = tower(image)
    spec = tower.read_stages(SPEC, (-4, -3), (1, 3))
    both = tower(image)
    assert both.shape == (2, spec.features)
    torch.testing.assert_close(both[:, : SPEC.features], pooled)
    # Two stages of two blocks, each of unit length.
    torch.testing.assert_close(both[:, SPEC.features :].square().sum(dim=1), torch.full((2,), 4.0))
    assert tower.read_stages(spec, (), ()) == SPEC
    assert torch.equal(tower(image), pooled)
