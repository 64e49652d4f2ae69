"""Tuning a tiny tower: what moves, what stays, what is refused, what is resumed."""

import copy
import io
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.methods.tower_stages import tuned_logits
from newshelf.config import Settings, TowerTuningSettings
from newshelf.errors import TrainingError
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.nn.tower_stages import PyramidPool
from newshelf.training import tower_tuning
from newshelf.training.picture_data import PictureSet
from newshelf.training.run import Run
from newshelf.training.tower_tuning import (
    Activations,
    TowerObjective,
    TowerSettings,
    linear_probe,
    rate_groups,
    thaw,
    tune_tower,
)

SIZE = 32
CLASSES = ("bright", "dark")


def tiny(architecture: str = "test_efficientnet") -> tuple[ImageInput, ImageTower]:
    torch.manual_seed(3)
    features = timm.create_model(architecture, num_classes=0).num_features
    mean = (0.5, 0.5, 0.5)
    spec = ImageInput(architecture=architecture, features=features, size=64, mean=mean, std=mean)
    return spec, ImageTower(spec).eval()


def some_pictures(each: int = 12) -> tuple[PictureSet, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 60, (2 * each, 3, SIZE, SIZE), generator=generator)
    target = torch.arange(2 * each) % 2
    pixels = noise + 100 * (1 - target).view(-1, 1, 1, 1)
    return PictureSet(torch.arange(2 * each), pixels.to(torch.uint8)), target


def settings(**changed: object) -> TowerSettings:
    few = {
        "stage": -1,
        "size": SIZE,
        "epochs": 3,
        "views": 2,
        "batch_size": 8,
        "bf16": False,
        "validation": 0,
    }
    return TowerSettings.model_validate({**few, **changed})


def run(**changed: object) -> Run:
    return Run(seed=1, console=Console(file=io.StringIO()), quiet=True, **changed)


def moved(before: ImageTower, after: ImageTower) -> set[str]:
    old, new = before.backbone.state_dict(), after.backbone.state_dict()
    return {name.rsplit(".", 1)[0] for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("mode", ["heads-only", "last-stage", "full"])
def test_a_mode_moves_its_part_of_the_tower_and_learns(architecture, mode):
    spec, tower = tiny(architecture)
    source = copy.deepcopy(tower)
    pictures, target = some_pictures()
    chosen = settings(mode=mode, thaw_epochs=0)
    tuned = tune_tower("t", tower, spec, pictures, target, CLASSES, chosen, run())
    names = moved(source, tuned.tower)
    stem = "conv1" if architecture == "test_resnet" else "conv_stem"
    last = "layer4" if architecture == "test_resnet" else "blocks.4"
    assert any(name.startswith(stem) for name in names) == (mode == "full")
    assert any(name.startswith(last) for name in names) == (mode != "heads-only")
    assert (
        tuned_logits(tuned, chosen, pictures.pixels).argmax(dim=1) == target
    ).float().mean() > 0.9


def test_the_statistics_of_normalisation_stay_the_source_s():
    spec, tower = tiny()
    source = copy.deepcopy(tower)
    pictures, target = some_pictures()
    tune_tower("t", tower, spec, pictures, target, CLASSES, settings(mode="full"), run())
    for name, value in source.backbone.named_buffers():
        assert torch.equal(value, tower.backbone.get_buffer(name)), name


def test_a_heavier_l2_sp_keeps_the_weights_nearer_to_the_source():
    spec, tower = tiny()
    pictures, target = some_pictures()

    def distance(weight: float) -> float:
        learner = copy.deepcopy(tower)
        chosen = settings(mode="full", l2_sp=weight, thaw_epochs=0, learning_rate=1e-2)
        tune_tower("t", learner, spec, pictures, target, CLASSES, chosen, run())
        pairs = zip(tower.parameters(), learner.parameters(), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs)

    assert distance(10.0) < 0.5 * distance(0.0)


def test_a_cached_trunk_gives_what_the_whole_tower_gives():
    spec, tower = tiny()
    pictures, target = some_pictures()
    chosen = settings(augment=False, epochs=1)
    tuned = tune_tower("t", tower, spec, pictures, target, CLASSES, chosen, run())
    x = (pictures.pixels.float() / 255 - 0.5) / 0.5
    features = torch.nn.functional.normalize(tuned.tower(x), dim=1)
    torch.testing.assert_close(
        tuned_logits(tuned, chosen, pictures.pixels, bf16=False),
        tuned.head(features),
        rtol=1e-3,
        atol=1e-3,
    )


def test_an_inner_stage_can_be_read_and_what_follows_it_stays():
    spec, tower = tiny()
    source = copy.deepcopy(tower)
    pictures, target = some_pictures()
    chosen = settings(stage=-2, grids=(1, 2), mode="full", thaw_epochs=0)
    tuned = tune_tower("t", tower, spec, pictures, target, CLASSES, chosen, run())
    names = moved(source, tuned.tower)
    assert any(name.startswith("blocks.4") for name in names)
    assert not any(name.startswith("conv_head") for name in names)
    assert (
        tuned_logits(tuned, chosen, pictures.pixels).argmax(dim=1) == target
    ).float().mean() > 0.9


def test_it_stops_early_on_the_held_out_part():
    spec, tower = tiny()
    pictures, target = some_pictures(each=20)
    chosen = settings(validation=0.2, patience=1, epochs=12, mode="heads-only")
    tuned = tune_tower("t", tower, spec, pictures, target, CLASSES, chosen, run())
    assert len(tuned.history.validation) == len(tuned.history.loss)
    assert tuned.history.validation[tuned.history.best_epoch] == max(tuned.history.validation)


def test_the_same_seed_gives_the_same_tower_also_when_killed_between_epochs(tmp_path, monkeypatch):
    spec, tower = tiny()
    pictures, target = some_pictures()
    chosen = settings(mode="full", epochs=3)

    def train(**state: object) -> ImageTower:
        learner = copy.deepcopy(tower)
        tune_tower("t", learner, spec, pictures, target, CLASSES, chosen, run(**state))
        return learner

    whole = train()
    saved = Run.save

    def killed(self: Run, name: str, progress: object) -> None:
        saved(self, name, progress)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(state=tmp_path, identity="one")
    assert moved(whole, train(state=tmp_path, identity="one")) == set()


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("ring",), "two classes at least; .*'ring'"), (CLASSES, "no product is labelled dark")],
)
def test_labels_nothing_can_be_learned_from_are_refused(classes, message):
    spec, tower = tiny()
    pictures, _ = some_pictures()
    target = torch.zeros(24, dtype=torch.int64)
    with pytest.raises(TrainingError, match=message):
        tune_tower("t", tower, spec, pictures, target, classes, settings(), run())


def test_a_tower_whose_features_are_not_numbers_is_refused():
    spec, tower = tiny()
    with torch.no_grad():
        next(tower.parameters()).fill_(float("nan"))
    pictures, target = some_pictures()
    with pytest.raises(TrainingError, match="not numbers"):
        tune_tower("t", tower, spec, pictures, target, CLASSES, settings(), run())


def test_an_architecture_without_known_stages_is_refused():
    spec, tower = tiny("test_vit")
    pictures, target = some_pictures()
    with pytest.raises(TrainingError, match="EfficientNet or a ResNet"):
        tune_tower("t", tower, spec, pictures, target, CLASSES, settings(), run())


STAGES = [nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)]


def test_each_stage_learns_slower_than_the_one_after_it():
    head = nn.Linear(1, 2)
    groups = rate_groups(STAGES, head, rate=0.26, decay=2.0, head_rate=10.0)
    assert [group["lr"] for group in groups] == pytest.approx([0.065, 0.26, 2.6])


@pytest.mark.parametrize(
    ("epoch", "each", "learning"),
    [(0, 2.0, []), (2, 2.0, [2]), (5, 2.0, [1, 2]), (90, 2.0, [0, 1, 2]), (0, 0, [0, 1, 2])],
)
def test_stages_thaw_from_the_top(epoch, each, learning):
    stages = [nn.Linear(1, 1) for _ in range(3)]
    thaw(stages, epoch, each)
    assert [at for at, stage in enumerate(stages) if stage.weight.requires_grad] == learning


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns(classes):
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(30) % classes
    features = torch.randn(30, 5, generator=generator) + target.unsqueeze(1)
    head = linear_probe(features, target, tuple("abc"[:classes]), 10.0)
    theirs = LogisticRegression(C=10.0, max_iter=400).fit(features.numpy(), target.numpy())
    ours = head(features).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(features.numpy()), atol=1e-5)


def test_features_that_are_not_numbers_are_refused_by_row():
    features = torch.ones(6, 2)
    features[4, 1] = float("nan")
    with pytest.raises(TrainingError, match=r"1 of 6 products .*rows 4"):
        linear_probe(features, torch.tensor([0, 1] * 3), ("a", "b"))


def test_a_step_is_taken_where_the_pictures_are():
    spec, _ = tiny()
    gpu = torch.device("cuda", 0)
    with FakeTensorMode():
        pixels = torch.zeros((6, 3, SIZE, SIZE), dtype=torch.uint8, device=gpu)
        activations = Activations(pixels, pixels[:0], spec, augment=False, bf16=True)
        tail = nn.Sequential(nn.Conv2d(3, 4, 3, device=gpu), PyramidPool((1,)))
        head = nn.Linear(4, 2, device=gpu)
        target, weights = torch.zeros(6, dtype=torch.int64), torch.ones(2)
        objective = TowerObjective(activations, tail, head, target, weights, settings(l2_sp=1.0))
        losses = objective(torch.arange(3))
    assert {loss.device for loss in losses.values()} == {gpu}


@pytest.mark.parametrize(
    ("mode", "has_gpu", "device"),
    [("full", True, "cuda:1"), ("full", False, "cpu"), ("last-stage", True, "cpu")],
)
def test_a_gpu_tunes_the_whole_tower(monkeypatch, mode, has_gpu, device):
    spec, tower = tiny()
    pictures, target = some_pictures()
    told: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(tower_tuning, "read_pictures", lambda *_: pictures)
    monkeypatch.setattr(tower_tuning, "tune_tower", lambda *given: told.append(given[-1]))
    catalog = SimpleNamespace(image_path=lambda _: "there")
    chosen = Settings(tower=TowerTuningSettings(mode=mode))
    labels = SimpleNamespace(target=target, classes=CLASSES)
    tune = tower_tuning.tower_tuning(catalog, labels, chosen, run())
    tune(SimpleNamespace(image_tower=tower, spec=SimpleNamespace(image=spec)))
    assert [str(one) for one in told] == [device]
