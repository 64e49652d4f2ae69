"""Balanced epochs, held-out parts and class weights."""

import torch

from newshelf.training.picture_data import class_weights, epoch_rows, hold_out

TARGET = torch.tensor([0] * 40 + [1] * 10 + [2] * 10)


def test_a_balanced_epoch_draws_each_class_alike_and_each_row_before_any_twice():
    rows = epoch_rows(TARGET, True, torch.Generator().manual_seed(0))
    assert torch.bincount(TARGET[rows]).tolist() == [20, 20, 20]
    times = torch.bincount(rows, minlength=60)
    assert times[:40].max() == 1
    assert times[40:].tolist() == [2] * 20


def test_an_unbalanced_epoch_is_every_row_once():
    rows = epoch_rows(TARGET, False, torch.Generator().manual_seed(0))
    assert sorted(rows.tolist()) == list(range(60))
    assert rows.tolist() != list(range(60))


def test_a_share_of_each_class_is_held_out():
    learn, held = hold_out(TARGET, 0.2, torch.Generator().manual_seed(0))
    assert torch.bincount(TARGET[held]).tolist() == [8, 2, 2]
    assert sorted(torch.cat([learn, held]).tolist()) == list(range(60))


def test_nothing_is_held_out_of_a_few_shots():
    learn, held = hold_out(torch.tensor([0] * 40 + [1] * 9), 0.2, torch.Generator())
    assert (len(learn), len(held)) == (49, 0)


def test_class_weights_average_to_one_over_the_rows():
    weights = class_weights(TARGET, 4)
    torch.testing.assert_close(weights, torch.tensor([60 / 160, 60 / 40, 60 / 40, 0.0]))
