"""Adapting a classifier: what it gains on a rotated copy, and what it refuses."""

import math

import pytest
import torch

from benchmarks.methods.adapt.adapt import METHODS, AdaptSettings, adapt
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.losses import DANN, mk_mmd
from benchmarks.methods.adapt.network import Projection
from newshelf.errors import TrainingError
from newshelf.training.run import Run

SMALL = AdaptSettings(components=16, bottleneck=16, batch_size=32, steps=10, epochs=10)
CLASSES = 3


def blobs(count: int, angle: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clusters on a circle, turned by ``angle``, in a space of 8."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % CLASSES
    turn = label * 2 * math.pi / CLASSES + angle
    rows = torch.randn(count, 8, generator=generator) * 0.3
    rows[:, :2] += torch.stack([turn.cos(), turn.sin()], dim=1)
    return rows, label


@pytest.fixture(scope="module")
def domains() -> tuple[Labelled, Unlabelled, torch.Tensor]:
    features, label = blobs(300, 0.0, seed=0)
    turned, truth = blobs(300, math.radians(50), seed=1)
    return Labelled(features, label), Unlabelled(turned), truth


def accuracy(domains, method: str, **named) -> float:
    source, target, truth = domains
    classifier = adapt(source, target, Run(0, quiet=True), method=method, settings=SMALL, **named)
    return float((classifier.predict(target.features) == truth).float().mean())


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in {"source-only", "adabn"}]
)
def test_each_method_is_better_than_none_on_a_rotated_copy(domains, method):
    assert accuracy(domains, method) > accuracy(domains, "source-only") + 0.01


def test_dan_brings_the_domains_together(domains):
    source, target, _ = domains
    gaps = {}
    for method in ("source-only", "dan"):
        model = adapt(source, target, Run(0, quiet=True), method=method, settings=SMALL)
        gaps[method] = float(mk_mmd(model.embed(source.features), model.embed(target.features)))
    assert gaps["dan"] < gaps["source-only"], gaps


def test_the_target_is_normalised_by_its_own_mean_and_variance(domains):
    source, target, _ = domains
    shifted = Unlabelled(target.features + 2.0)
    model = adapt(source, shifted, Run(0, quiet=True), method="adabn", settings=SMALL)
    norm = model.network.norm
    with torch.no_grad():
        rows = model.network.embed[0](model.projection(shifted.features))
    assert torch.allclose(norm.running_mean, rows.mean(dim=0), atol=1e-5)
    assert torch.allclose(norm.running_var, rows.var(dim=0), atol=1e-5)


def test_a_seed_gives_the_same_classifier_and_leaves_the_generator_alone(domains):
    source, target, _ = domains
    before = torch.get_rng_state()
    first, again, other = (
        adapt(source, target, Run(seed, quiet=True), settings=SMALL)(target.features)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(domains, tmp_path):
    source, target, _ = domains
    whole = adapt(source, target, Run(0, quiet=True), method="dann", settings=SMALL)

    class Killed(DANN):
        def forward(self, source, target):
            if self.progress >= 0.5:
                raise KeyboardInterrupt
            return super().forward(source, target)

    run = Run(0, quiet=True, state=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        adapt(source, target, run, method=Killed, settings=SMALL)
    resumed = adapt(source, target, run, method="dann", settings=SMALL)
    assert torch.equal(whole(target.features), resumed(target.features))


def test_few_rows_and_wide_features_are_enough():
    features = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    source = Labelled(features, torch.tensor([0, 1, 0, 1, 0, 1]))
    model = adapt(source, Unlabelled(features[:3] + 0.1), Run(0, quiet=True), settings=SMALL)
    assert model.predict(features).tolist() == [0, 1, 0, 1, 0, 1]


def with_nan(features: torch.Tensor) -> torch.Tensor:
    damaged = features.clone()
    damaged[7, 2] = math.nan
    return damaged


BAD = {
    "no unlabelled rows": lambda s, t: (s, Unlabelled(t.features[:0])),
    "no labelled rows": lambda s, t: (Labelled(s.features[:0], s.target[:0]), t),
    "of one class": lambda s, t: (Labelled(s.features, torch.zeros_like(s.target)), t),
    "target's 300 rows have features that are not finite, first row 7": lambda s, t: (
        s,
        Unlabelled(with_nan(t.features)),
    ),
    "source's 300 rows": lambda s, t: (Labelled(with_nan(s.features), s.target), t),
    "8 wide, the target's 5": lambda s, t: (s, Unlabelled(t.features[:, :5])),
    "299 labels": lambda s, t: (Labelled(s.features, s.target[1:]), t),
    "without a label": lambda s, t: (Labelled(s.features, s.target - 1), t),
    "one row per product": lambda s, t: (s, Unlabelled(t.features[0])),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_domains_are_refused_before_training(domains, message):
    source, target, _ = domains
    with pytest.raises(TrainingError, match=message):
        adapt(*BAD[message](source, target), Run(0, quiet=True))


def test_an_unknown_method_is_told_the_known_ones(domains):
    source, target, _ = domains
    with pytest.raises(TrainingError, match="source-only, adabn, dann"):
        adapt(source, target, Run(0, quiet=True), method="magic")


def test_a_classifier_refuses_features_of_other_towers(domains):
    source, target, _ = domains
    model = adapt(source, target, Run(0, quiet=True), settings=SMALL)
    with pytest.raises(TrainingError, match=r"5 wide, .* 8"):
        model.predict(target.features[:, :5])


def test_a_shared_projection_gives_what_an_own_one_does(domains):
    source, target, _ = domains
    shared = Projection.of(source, target, SMALL.components)
    run = Run(0, quiet=True)
    own = adapt(source, target, run, settings=SMALL)
    other = adapt(source, target, run, settings=SMALL, projection=shared)
    assert torch.equal(own(target.features), other(target.features))
    assert other.projection is shared
