"""Stage features against a naive loop, the probe against scikit-learn."""

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression

from newshelf.errors import TrainingError
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.training.probe import fit_probe
from newshelf.training.tower_stages import StageSettings, stage_features

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


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns(classes):
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(30) % classes
    features = torch.randn(30, 5, generator=generator) + target.unsqueeze(1)
    names = tuple("abc"[:classes])
    probe = fit_probe(features, target, names, seed=0, strengths=(10.0,))
    theirs = LogisticRegression(C=10.0, max_iter=400).fit(features.numpy(), target.numpy())
    ours = probe.logits(features).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(features.numpy()), atol=1e-5)
    assert (probe.predict(features).numpy() == theirs.predict(features.numpy())).all()


def test_a_few_shots_take_the_default_and_many_are_cross_validated():
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(200) % 2
    # Almost nothing can be told from these: the strongest penalty predicts best.
    noise = torch.randn(200, 40, generator=generator)
    few = fit_probe(noise[:10], target[:10], ("a", "b"), seed=0, default=1000.0)
    many = fit_probe(noise, target, ("a", "b"), seed=0, strengths=(1e-3, 1e3))
    assert few.strength == 1000.0
    assert many.strength == 1e-3


def test_features_that_are_not_numbers_are_refused_by_row():
    features = torch.ones(6, 2)
    features[4, 1] = float("nan")
    with pytest.raises(TrainingError, match=r"1 of 6 products .*rows 4"):
        fit_probe(features, torch.tensor([0, 1] * 3), ("a", "b"), seed=0)


def test_an_unknown_tower_is_refused(pixels):
    spec = SPEC.model_copy(update={"architecture": "test_vit"})
    assert timm.is_model("test_vit")
    with pytest.raises(TrainingError, match="stage by stage"):
        stage_features(ImageTower(spec), spec, pixels, StageSettings())
