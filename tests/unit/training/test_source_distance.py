"""L2-SP against its closed form."""

import torch
from torch import nn

from newshelf.training.tower_tuning import SourceDistance


def test_it_is_the_squared_distance_and_pulls_straight_back():
    layer = nn.Linear(3, 2)
    distance = SourceDistance(layer.parameters())
    assert distance().item() == 0
    with torch.no_grad():
        layer.weight += 0.5
        layer.bias -= 1.0
    value = distance()
    torch.testing.assert_close(value, torch.tensor(6 * 0.25 + 2 * 1.0))
    value.backward()
    torch.testing.assert_close(layer.weight.grad, torch.full((2, 3), 1.0))
    torch.testing.assert_close(layer.bias.grad, torch.full((2,), -2.0))


def test_what_is_frozen_does_not_count():
    layer = nn.Linear(3, 2)
    distance = SourceDistance(layer.parameters())
    with torch.no_grad():
        layer.weight += 1.0
        layer.bias += 1.0
    layer.weight.requires_grad_(False)
    torch.testing.assert_close(distance(), torch.tensor(2.0))


def test_the_source_is_kept_with_the_state_and_no_parameter_twice():
    layer = nn.Linear(3, 2)
    distance = SourceDistance(layer.parameters())
    assert list(distance.parameters()) == []
    assert {tuple(value.shape) for value in distance.state_dict().values()} == {(2, 3), (2,)}
