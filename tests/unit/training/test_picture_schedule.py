"""ULMFiT's rates and thawing."""

import pytest
import torch
from torch import nn

from newshelf.training.tower_tuning import rate_groups, slanted_triangular, thaw

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


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_for_the_rest():
    """Equation 3 of the paper, written as it is printed."""
    steps, cut, ratio = 50, 5, 32
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = slanted_triangular(optimizer, steps)
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (steps / cut - 1))
        assert optimizer.param_groups[0]["lr"] == pytest.approx((1 + p * (ratio - 1)) / ratio)
        optimizer.step()
        schedule.step()
