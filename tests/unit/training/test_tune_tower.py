"""Tuning a tiny tower: what moves, what stays, what is refused, what is resumed."""

import copy
import io

import pytest
import timm
import torch
from rich.console import Console

from newshelf.errors import TrainingError
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.training.picture_data import PictureSet
from newshelf.training.run import Run
from newshelf.training.tower_stages import TowerSettings
from newshelf.training.tower_tuning import tune_tower

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
    tuned = tune_tower(
        "t", tower, spec, pictures, target, CLASSES, settings(mode=mode, thaw_epochs=0), run()
    )
    names = moved(source, tuned.tower)
    stem = "conv1" if architecture == "test_resnet" else "conv_stem"
    last = "layer4" if architecture == "test_resnet" else "blocks.4"
    assert any(name.startswith(stem) for name in names) == (mode == "full")
    assert any(name.startswith(last) for name in names) == (mode != "heads-only")
    assert (tuned.logits(pictures.pixels).argmax(dim=1) == target).float().mean() > 0.9


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
    tuned = tune_tower(
        "t", tower, spec, pictures, target, CLASSES, settings(augment=False, epochs=1), run()
    )
    x = (pictures.pixels.float() / 255 - 0.5) / 0.5
    features = torch.nn.functional.normalize(tuned.tower(x), dim=1)
    torch.testing.assert_close(
        tuned.logits(pictures.pixels, bf16=False), tuned.head(features), rtol=1e-3, atol=1e-3
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
    assert (tuned.logits(pictures.pixels).argmax(dim=1) == target).float().mean() > 0.9


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
    ("target", "classes", "shots", "says"),
    [
        ([0] * 24, ("ring",), 1, "two classes at least; .*'ring'"),
        ([0] * 23 + [1], CLASSES, 5, "5 labelled products of each class.*dark has 1"),
        ([0] * 24, CLASSES, 1, "dark has 0"),
    ],
)
def test_labels_nothing_can_be_learned_from_are_refused(target, classes, shots, says):
    spec, tower = tiny()
    pictures, _ = some_pictures()
    with pytest.raises(TrainingError, match=says):
        tune_tower(
            "t", tower, spec, pictures, torch.tensor(target), classes, settings(), run(),
            shots=shots,
        )  # fmt: skip


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
