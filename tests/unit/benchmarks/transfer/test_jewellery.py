"""The mean of classifiers, written out for one picture."""

import math

import torch

from benchmarks.transfer.jewellery import choose_strength, geometric_mean


def test_it_is_the_normalised_geometric_mean_of_the_probabilities():
    first, second = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.4, 0.6]])
    # Added constants say nothing: logits, not probabilities, are given.
    mean = geometric_mean([first.log() + 3, second.log() - 7]).exp()
    bright, dark = math.sqrt(0.8 * 0.4), math.sqrt(0.2 * 0.6)
    expected = torch.tensor([[bright / (bright + dark), dark / (bright + dark)]])
    torch.testing.assert_close(mean, expected)


def test_one_classifier_stays_as_it_is():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(geometric_mean([logits]), logits.log_softmax(dim=1))


def test_a_few_shots_take_the_default_and_many_are_cross_validated():
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(200) % 2
    # Almost nothing can be told from these: the strongest penalty predicts best.
    noise = torch.randn(200, 40, generator=generator)
    assert choose_strength(noise[:10], target[:10], 0) == 100.0
    assert choose_strength(noise, target, 0, (1e-3, 1e3)) == 1e-3
