"""Adapting a classifier: what it gains on a rotated copy, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch

from newshelf.training.adaptation import MCC, AdaBN, AdaptSettings, adapt
from newshelf.training.run import Run
from tests.unit.training.synthetic import blobs

SMALL = AdaptSettings(bottleneck=16, batch_size=32, steps=10, epochs=10)


@pytest.fixture(scope="module")
def domains() -> tuple[torch.Tensor, ...]:
    features, label = blobs(300, 0.0, seed=0)
    turned, truth = blobs(300, math.radians(50), seed=1)
    return features, label, turned, truth


def accuracy(domains, method: type) -> float:
    *_, target, truth = domains
    model = adapt(*domains[:3], Run(0, quiet=True), method=method, settings=SMALL)
    return float((model(target)[1].argmax(dim=1) == truth).float().mean())


def test_mcc_is_better_than_the_statistics_alone_on_a_rotated_copy(domains):
    assert accuracy(domains, MCC) > accuracy(domains, AdaBN) + 0.01


def test_the_target_is_normalised_by_its_own_mean_and_variance(domains):
    source, labels, target, _ = domains
    shifted = target + 2.0
    model = adapt(source, labels, shifted, Run(0, quiet=True), method=AdaBN, settings=SMALL)
    norm = model.norm
    with torch.no_grad():
        rows = model.embed[0](shifted)
    assert torch.allclose(norm.running_mean, rows.mean(dim=0), atol=1e-5)
    assert torch.allclose(norm.running_var, rows.var(dim=0), atol=1e-5)


def test_a_seed_gives_the_same_classifier_and_leaves_the_generator_alone(domains):
    source, labels, target, _ = domains
    before = torch.get_rng_state()
    few = replace(SMALL, epochs=2)
    first, again, other = (
        adapt(source, labels, target, Run(seed, quiet=True), settings=few)(target)[1]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_few_rows_and_wide_features_are_enough():
    features = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    model = adapt(features, labels, features[:3] + 0.1, Run(0, quiet=True), settings=SMALL)
    assert model(features)[1].argmax(dim=1).tolist() == [0, 1, 0, 1, 0, 1]
