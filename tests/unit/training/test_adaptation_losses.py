"""The adaptation losses beside naive loops, and on a device that is not there."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from newshelf.training.adaptation import (
    CDAN,
    DANN,
    FACTORS,
    METHODS,
    RTN,
    AdaptationNetwork,
    AdaptSettings,
    RampedLoss,
    adapt,
    class_confusion,
    discrepancy,
    entropy,
    kernels,
    reverse_gradient,
)
from newshelf.training.run import Run
from tests.unit.training.synthetic import blobs


def rows(count: int, width: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def network(classes: int = 3) -> AdaptationNetwork:
    torch.manual_seed(0)
    return AdaptationNetwork(6, classes, AdaptSettings(bottleneck=8, dropout=0.0))


def mk_mmd(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return discrepancy(kernels(source, target), len(source))


def naive_mmd(source: torch.Tensor, target: torch.Tensor) -> float:
    both = [*source.tolist(), *target.tolist()]

    def square(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    pairs = [square(a, b) for i, a in enumerate(both) for j, b in enumerate(both) if i != j]
    bandwidth = sum(pairs) / len(pairs)

    def mean_kernel(left, right):
        values = [
            sum(math.exp(-square(a, b) / (factor * bandwidth)) for factor in FACTORS) / len(FACTORS)
            for a in left.tolist()
            for b in right.tolist()
        ]
        return sum(values) / len(values)

    return (
        mean_kernel(source, source) + mean_kernel(target, target) - 2 * mean_kernel(source, target)
    )


@pytest.mark.parametrize("counts", [(5, 5), (7, 3)])
def test_mmd_is_the_naive_double_loop(counts):
    source, target = rows(counts[0], 4, 1), rows(counts[1], 4, 2, shift=0.7)
    assert float(mk_mmd(source, target)) == pytest.approx(naive_mmd(source, target), abs=1e-5)


def test_mmd_grows_with_the_shift_and_is_zero_for_the_same_rows():
    source = rows(40, 4, 1)
    gaps = [float(mk_mmd(source, rows(40, 4, 2, shift))) for shift in (0.0, 0.5, 2.0)]
    assert gaps == sorted(gaps)
    assert float(mk_mmd(source, source)) == pytest.approx(0.0, abs=1e-6)


def test_mmd_has_a_finite_gradient_where_rows_are_equal():
    source = torch.ones(3, 4, requires_grad=True)
    mk_mmd(source, torch.ones(3, 4)).backward()
    assert torch.isfinite(source.grad).all()


def test_the_gradient_is_reversed_and_scaled():
    features = rows(4, 3, 0).requires_grad_()
    weights = rows(4, 3, 1)
    reversed_features = reverse_gradient(features, 0.25)
    assert torch.equal(reversed_features, features)
    (reversed_features * weights).sum().backward()
    assert torch.allclose(features.grad, -0.25 * weights)


def test_the_ramp_goes_from_nothing_to_one():
    loss = RTN(network(), 10)
    found = []
    for step in (0, 1, 10):
        loss.step.fill_(step)
        found.append(loss.ramp)
    assert found == pytest.approx([0.0, 2 / (1 + math.exp(-1)) - 1, 1.0], abs=1e-4)


def test_entropy_is_the_naive_sum():
    logits = rows(5, 4, 0) * 3
    for row, value in zip(logits.softmax(1).tolist(), entropy(logits), strict=True):
        assert float(value) == pytest.approx(-sum(p * math.log(p) for p in row), abs=1e-5)
    assert float(entropy(torch.zeros(1, 4))) == pytest.approx(math.log(4))
    assert float(entropy(torch.tensor([[200.0, 0.0]]))) == 0.0


def test_class_confusion_is_the_naive_loop():
    logits = rows(7, 3, 0) * 4
    probability = (logits / 2.5).softmax(1).tolist()
    weight = [1 + math.exp(sum(p * math.log(p) for p in row)) for row in probability]
    weight = [value * len(weight) / sum(weight) for value in weight]
    matrix = [
        [sum(w * row[j] * row[k] for w, row in zip(weight, probability, strict=True))
         for k in range(3)]
        for j in range(3)
    ]  # fmt: skip
    between = sum(matrix[j][k] / sum(matrix[j]) for j in range(3) for k in range(3) if j != k)
    assert float(class_confusion(logits)) == pytest.approx(between / 3, abs=1e-5)


def test_class_confusion_goes_from_none_to_all():
    assert float(class_confusion(torch.eye(4) * 500)) == pytest.approx(0.0, abs=1e-5)
    assert float(class_confusion(torch.zeros(6, 4))) == pytest.approx(3 / 4)


def test_the_discriminator_weighs_domains_alike_and_rows_by_their_weight(monkeypatch):
    loss = DANN(network(), 1)
    source, target = (rows(2, 8, 0), rows(2, 3, 2)), (rows(6, 8, 1), rows(6, 3, 3))
    said = torch.sigmoid(loss.discriminator(torch.cat([source[0], target[0]]))).squeeze(1)
    expected = -(said[:2].log().mean() + (1 - said[2:]).log().mean()) / 2
    assert torch.allclose(loss.adaptation(source, target), expected)
    only = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(loss, "weights", lambda logits: only)
    expected = -(said[1].log() + (1 - said[2]).log()) / 2
    assert torch.allclose(loss.adaptation(source, target), expected)


def test_cdan_sees_the_embedding_by_class():
    loss = CDAN(network(), 1)
    embedding, logits = rows(2, 8, 0), rows(2, 3, 1)
    probability = logits.softmax(1)
    seen = loss.shown(embedding, logits)
    for row in range(2):
        for k in range(3):
            for h in range(8):
                expected = float(probability[row, k] * embedding[row, h])
                assert float(seen[row, k * 8 + h]) == pytest.approx(expected, abs=1e-6)


def test_cdan_projects_what_would_be_too_wide_and_keeps_products_on_average():
    loss = CDAN(network(classes=600), 1)
    embedding, logits = rows(2, 8, 0), rows(2, 600, 1) * 3
    seen = loss.shown(embedding, logits)
    assert seen.shape == (2, 4096)
    probability = logits.softmax(1)
    exact = float((embedding @ embedding.T)[0, 1] * (probability @ probability.T)[0, 1])
    size = float((embedding.norm(dim=1) * probability.norm(dim=1)).prod())
    assert float(seen[0] @ seen[1]) == pytest.approx(exact, abs=0.15 * size)


def test_a_residual_starts_at_nothing():
    loss = RTN(network(), 1)
    assert not loss.residual(rows(4, 3, 0)).any()


def test_an_adversary_makes_the_features_worse_for_it():
    loss = METHODS["dann"](network(), 10)
    loss.step.fill_(10)
    batch = rows(8, 6, 0), torch.arange(8) % 3, rows(8, 6, 1, shift=1.0)
    losses = loss(batch)
    losses["adaptation"].backward()
    with torch.no_grad():
        for parameter in loss.network.embed.parameters():
            parameter.sub_(0.05 * parameter.grad)
        assert loss(batch)["adaptation"] > losses["adaptation"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_finite_scalars_for_batches_of_two_sizes(method):
    loss = METHODS[method](network(), 2)
    if isinstance(loss, RampedLoss):
        loss.step.fill_(1)
    losses = loss((rows(8, 6, 0), torch.arange(8) % 3, rows(5, 6, 1)))
    assert "loss" in losses
    assert all(value.shape == () and torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_where_its_batches_are(method, monkeypatch):
    # A number is not read from a tensor that is not there.
    monkeypatch.setattr(RampedLoss, "ramp", 0.5)
    with FakeTensorMode():
        with torch.device("cuda"):
            loss = METHODS[method](network(), 2)
        source, target = torch.empty(4, 6, device="cuda"), torch.empty(5, 6, device="cuda")
        labels = torch.zeros(4, dtype=torch.int64, device="cuda")
        losses = loss((source, labels, target))
        assert {value.device.type for value in losses.values()} == {"cuda"}
        with pytest.raises(RuntimeError, match=r"(?i)device"):
            loss((source.cpu(), labels, target))


SMALL = AdaptSettings(bottleneck=16, batch_size=32, steps=10, epochs=10)


@pytest.fixture(scope="module")
def domains() -> tuple[torch.Tensor, ...]:
    features, label = blobs(300, 0.0, seed=0)
    turned, truth = blobs(300, math.radians(50), seed=1)
    # Of a mean square of about 1, as components of features are.
    scale = features.std()
    return features / scale, label, turned / scale, truth


@pytest.fixture(scope="module")
def adapted(domains) -> Callable[[str], AdaptationNetwork]:
    """By a method; each is trained once."""
    source, labels, target, _ = domains

    @functools.cache
    def by(method: str) -> AdaptationNetwork:
        run = Run(0, quiet=True)
        return adapt(source, labels, target, run, method=METHODS[method], settings=SMALL)

    return by


@pytest.mark.parametrize("method", ["dann", "rtn", "dan", "cdan"])
def test_each_method_is_better_than_none_on_a_rotated_copy(domains, adapted, method):
    *_, target, truth = domains
    found, without = (
        float((adapted(name)(target)[1].argmax(dim=1) == truth).float().mean())
        for name in (method, "adabn")
    )
    assert found > without + 0.01


def test_dan_brings_the_domains_together(domains, adapted):
    source, _, target, _ = domains
    gaps = {}
    for method in ("adabn", "dan"):
        ours, theirs = adapted(method)(source)[0], adapted(method)(target)[0]
        gaps[method] = float(discrepancy(kernels(ours, theirs), len(ours)))
    assert gaps["dan"] < gaps["adabn"], gaps


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(domains, adapted, tmp_path):
    source, labels, target, _ = domains

    class Killed(DANN):
        def forward(self, batch):
            if self.step >= self.steps / 2:
                raise KeyboardInterrupt
            return super().forward(batch)

    run = Run(0, quiet=True, state=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        adapt(source, labels, target, run, method=Killed, settings=SMALL)
    resumed = adapt(source, labels, target, run, method=DANN, settings=SMALL)
    assert torch.equal(adapted("dann")(target)[1], resumed(target)[1])
