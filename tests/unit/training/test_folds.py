"""Folds share no row, and grouped ones no look-alikes."""

import pytest
import torch

from newshelf.errors import TrainingError
from newshelf.training.choose import mean_recall, validation_folds


def look_alikes(groups: int, each: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Groups of products far from each other: features, target of two classes, group."""
    generator = torch.Generator().manual_seed(3)
    group = torch.arange(groups).repeat_interleave(each)
    centres = 100 * torch.randn(groups, 6, generator=generator)
    features = centres[group] + 0.01 * torch.randn(len(group), 6, generator=generator)
    return features, group % 2, group


def test_a_fold_learns_from_other_rows_than_it_validates_on():
    features, target, _ = look_alikes(20, 5)
    target[:10] = -1
    folds = validation_folds(target, features, seed=1)
    for fold in (*folds.random, *folds.grouped):
        assert not set(fold.learn.tolist()) & set(fold.held.tolist())
        assert set(target[fold.held].tolist()) <= set(target[fold.learn].tolist()) <= {0, 1}
    held = torch.cat([fold.held for fold in folds.random])
    assert sorted(held.tolist()) == list(range(10, 100))


def test_look_alikes_are_kept_together():
    features, target, group = look_alikes(20, 5)
    folds = validation_folds(target, features, seed=1)
    for fold in folds.grouped:
        assert not set(group[fold.learn].tolist()) & set(group[fold.held].tolist())
    assert any(
        set(group[fold.learn].tolist()) & set(group[fold.held].tolist()) for fold in folds.random
    )


def test_folds_depend_on_the_seed_only():
    features, target, _ = look_alikes(20, 5)
    first, again = (validation_folds(target, features, seed=1) for _ in range(2))
    for one, other in zip(first.grouped, again.grouped, strict=True):
        assert torch.equal(one.learn, other.learn)


@pytest.mark.parametrize(
    "target", [[0] * 20, [0, 1] * 3, [-1] * 20, list(range(20))], ids=lambda rows: str(len(rows))
)
def test_too_few_labels_are_refused(target):
    with pytest.raises(TrainingError, match="too few to validate on"):
        validation_folds(torch.tensor(target), torch.randn(len(target), 4), seed=1)


def test_products_that_all_look_alike_are_refused():
    target = torch.tensor([0] * 10 + [1] * 10)
    features = torch.zeros(20, 4)
    features[10:] = 1
    with pytest.raises(TrainingError, match="look alike in 2 ways"):
        validation_folds(target, features, seed=1)


def test_the_mean_recall_counts_each_class_equally():
    truth = torch.tensor([0, 0, 0, 1])
    assert mean_recall(torch.tensor([0, 0, 0, 0]), truth) == 0.5
