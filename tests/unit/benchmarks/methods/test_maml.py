"""MAML's gradients beside plain autograd and finite differences, and what it learns."""

import copy
import math
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.methods.meta.maml import Maml
from newshelf.errors import TrainingError
from newshelf.training.loop import fit
from newshelf.training.run import Run

STEPS, RATE, TASKS = 3, 0.3, 4


class Points(NamedTuple):
    x: Tensor
    y: Tensor


def square_loss(predict, part: Points) -> Tensor:
    return F.mse_loss(predict(part.x), part.y)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()


@pytest.fixture
def batch() -> tuple[Points, Points]:
    generator = torch.Generator().manual_seed(1)

    def part(rows: int) -> Points:
        x = torch.randn(TASKS, rows, 2, generator=generator, dtype=torch.float64)
        slope = torch.randn(TASKS, 2, 1, generator=generator, dtype=torch.float64)
        return Points(x, (x @ slope).sin())

    return part(6), part(9)


def maml_of(net: nn.Module, **changes) -> Maml:
    return Maml(net, square_loss, **{"steps": STEPS, "rate": RATE, **changes})


def of_task(part: Points, task: int) -> Points:
    return Points(*(tensor[task] for tensor in part))


def naive_loss(
    net: nn.Module,
    batch: tuple[Points, Points],
    first_order: bool = False,
    every_step: bool = False,
) -> Tensor:
    """One task and one step after the other, by ``torch.autograd.grad``."""
    losses = []
    for task in range(TASKS):
        support, queries = (of_task(part, task) for part in batch)
        parameters = dict(net.named_parameters())
        after = []
        for _ in range(STEPS):
            loss = square_loss(partial(functional_call, net, parameters), support)
            slopes = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
            parameters = {
                name: value - RATE * (slope.detach() if first_order else slope)
                for (name, value), slope in zip(parameters.items(), slopes, strict=True)
            }
            after.append(square_loss(partial(functional_call, net, parameters), queries))
        losses.append(torch.stack(after).mean() if every_step else after[-1])
    return torch.stack(losses).mean()


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("every_step", [False, True])
def test_the_meta_gradient_equals_the_unrolled_loop(net, batch, first_order, every_step):
    loss = maml_of(net, first_order=first_order, every_step=every_step)(batch)["loss"]
    expected = naive_loss(net, batch, first_order, every_step)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for got, wanted in zip(gradients(net, loss), gradients(net, expected), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_the_second_order_gradient_equals_finite_differences(net, batch):
    maml = maml_of(net)
    analytic = gradients(net, maml(batch)["loss"])
    numeric = [torch.zeros_like(p) for p in net.parameters()]
    step = 1e-6
    with torch.no_grad():
        for parameter, found in zip(net.parameters(), numeric, strict=True):
            for at in range(parameter.numel()):
                ends = []
                for sign in (1, -1):
                    parameter.view(-1)[at] += sign * step
                    ends.append(float(maml(batch)["loss"]))
                    parameter.view(-1)[at] -= sign * step
                found.view(-1)[at] = (ends[0] - ends[1]) / (2 * step)
    for got, wanted in zip(analytic, numeric, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-8)


def test_first_order_drops_exactly_the_second_order_term(net, batch):
    """Its meta-gradient is the query loss's gradient at the adapted parameters."""
    maml = maml_of(net, first_order=True)
    second = gradients(net, maml_of(net)(batch)["loss"])
    first = gradients(net, maml(batch)["loss"])
    expected = [torch.zeros_like(p) for p in net.parameters()]
    for task in range(TASKS):
        support, queries = (of_task(part, task) for part in batch)
        there = copy.deepcopy(net)
        there.load_state_dict(maml.adapt(support))
        for total, slope in zip(
            expected, gradients(there, square_loss(there, queries)), strict=True
        ):
            total.add_(slope / TASKS)
    for got, wanted, other in zip(first, expected, second, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(got, other, rtol=1e-3)


def test_learned_rates_have_the_finite_difference_gradient(net, batch):
    maml = maml_of(net, learn_rates=True)
    maml.double()
    (analytic,) = torch.autograd.grad(maml(batch)["loss"], [maml.log_rates])
    step = 1e-6
    with torch.no_grad():
        for at in range(len(maml.log_rates)):
            ends = []
            for sign in (1, -1):
                maml.log_rates[at] += sign * step
                ends.append(float(maml(batch)["loss"]))
                maml.log_rates[at] -= sign * step
            assert float(analytic[at]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_adapting_equals_plain_gradient_descent_and_changes_no_start(net, batch):
    support = of_task(batch[0], 2)
    maml = maml_of(net)
    before = copy.deepcopy(net.state_dict())
    path = list(maml.trajectory(support, 5))
    descended = copy.deepcopy(net)
    optimizer = torch.optim.SGD(descended.parameters(), lr=RATE)
    for parameters in path:
        for name, value in descended.named_parameters():
            torch.testing.assert_close(parameters[name], value.detach(), rtol=1e-10, atol=1e-12)
        optimizer.zero_grad()
        square_loss(descended, support).backward()
        optimizer.step()
    assert len(path) == 6
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.is_grad_enabled()


def test_a_parameter_that_asks_for_no_gradient_is_left_alone(net, batch):
    net[0].requires_grad_(False)
    support = of_task(batch[0], 0)
    adapted = maml_of(net).adapt(support)
    assert torch.equal(adapted["0.weight"], net[0].weight)
    assert not torch.equal(adapted["2.weight"], net[2].weight)


def sinusoids(tasks: int, rows: int, generator: torch.Generator) -> tuple[Points, Points]:
    """``y = a sin(x + p)``: the toy of Finn et al., 2017."""
    amplitude = 0.5 + 3 * torch.rand(tasks, 1, 1, generator=generator)
    phase = math.pi * torch.rand(tasks, 1, 1, generator=generator)

    def part() -> Points:
        x = 10 * torch.rand(tasks, rows, 1, generator=generator) - 5
        return Points(x, amplitude * torch.sin(x + phase))

    return part(), part()


class Joint(nn.Module):
    """Learns all tasks at once, as if they were one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch):
        return {"loss": torch.stack([square_loss(self.net, part) for part in batch]).mean()}


def test_a_sinusoid_is_learned_from_ten_points_where_joint_training_fails():
    def error_after_adapting(meta: bool) -> float:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh())
        net.append(nn.Linear(40, 1))
        maml = Maml(net, square_loss, steps=1, rate=0.02)
        objective = maml if meta else Joint(net)

        def batches(epoch, generator):
            return [sinusoids(16, 10, generator) for _ in range(60)]

        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        fit("sinusoid", objective, batches, optimizer, Run(0, quiet=True), epochs=5)
        support, queries = sinusoids(60, 10, torch.Generator().manual_seed(7))
        errors = []
        for task in range(60):
            adapted = maml.adapt(of_task(support, task), steps=5)
            asked = of_task(queries, task)
            errors.append(float(square_loss(partial(maml.predict, adapted), asked)))
        return sum(errors) / len(errors)

    assert error_after_adapting(meta=True) < 0.5 * error_after_adapting(meta=False)


def test_a_rate_that_explodes_is_reported(net, batch):
    with pytest.raises(TrainingError, match="lower the inner rate"):
        maml_of(net, rate=1e200).adapt(of_task(batch[0], 0))


@pytest.mark.parametrize("mixed", [False, True])
def test_meta_training_makes_no_tensor_on_another_device(net, mixed):
    """On ``meta``: a backward pass on a GPU that is not there cannot even be pretended."""
    there = torch.device("meta")
    maml = maml_of(net.float(), learn_rates=True)
    with FakeTensorMode():
        state = {n: torch.empty(p.shape, device=there) for n, p in maml.named_parameters()}
        support, queries = (
            Points(torch.empty(TASKS, n, 2, device=there), torch.empty(TASKS, n, 1, device=there))
            for n in (6, 9)
        )
        if mixed:
            queries = Points(queries.x, torch.empty(TASKS, 9, 1))
            with pytest.raises(RuntimeError, match=r"(?i)device"):
                functional_call(maml, state, ((support, queries),))
            return
        assert functional_call(maml, state, ((support, queries),))["loss"].device == there
