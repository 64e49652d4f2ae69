"""The mean of classifiers, written out for one picture."""

import math

import torch

from benchmarks.transfer.jewellery import geometric_mean


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
