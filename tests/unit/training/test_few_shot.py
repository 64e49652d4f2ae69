"""A head for few labels, fitted where the embedding is whitened, is one linear layer."""

import pytest
import torch
from torch.nn import functional as F

from newshelf.errors import TrainingError
from newshelf.training.few_shot import ABSENT, fit_probe, fit_whitening, whitened_head
from tests.unit.training.synthetic import noisy_types


@pytest.fixture(scope="module")
def products() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """24 types that differ in what varies little; the last ten are the target's."""
    rows, labels = noisy_types(24, 40)
    return rows, torch.where(labels >= 14, labels - 14, -1), torch.where(labels < 14, labels, -1)


def right(fitted, rows, target) -> float:
    weight, bias = fitted
    return float(((rows @ weight.T + bias).argmax(dim=1) == target).float().mean())


def test_whitening_by_the_source_helps_the_target(products):
    rows, target, source = products
    new = target >= 0
    few = new.nonzero().flatten().view(10, 40)[:, :2].flatten()
    plain = right(fit_probe(F.normalize(rows[few], dim=1), target[few]), rows[new], target[new])
    assert right(whitened_head(rows, target, few, source), rows[new], target[new]) > plain + 0.2


def test_whitened_residuals_have_the_unit_covariance(products):
    rows, _, source = products
    _, matrix = fit_whitening(rows, source, shrinkage=1e-6)
    types = [rows[source == value] for value in range(14)]
    turned = torch.cat([of_type - of_type.mean(dim=0) for of_type in types]) @ matrix
    torch.testing.assert_close(turned.T @ turned / len(turned), torch.eye(12), atol=1e-3, rtol=0)


def test_full_shrinkage_only_centres_and_scales(products):
    rows, _, source = products
    mean, matrix = fit_whitening(rows, source, shrinkage=1.0)
    centred = rows - mean
    got = F.normalize(centred @ matrix, dim=1)
    plain = F.normalize(centred, dim=1)
    torch.testing.assert_close(got @ got.T, plain @ plain.T, atol=1e-4, rtol=0)


def test_the_head_classifies_as_the_probe_of_whitened_rows_does(products):
    rows, target, source = products
    few = (target >= 0).nonzero().flatten()[::7]
    mean, matrix = fit_whitening(rows, source)
    white = F.normalize((rows - mean) @ matrix, dim=1)
    weight, _ = fit_probe(white[few], target[few], intercept=False)
    scores, bias = whitened_head(rows, target, few, source)
    assert torch.equal((rows @ scores.T + bias).argmax(dim=1), (white @ weight.T).argmax(dim=1))


def test_a_class_without_a_label_never_wins(products):
    rows, target, source = products
    few = ((target == 1) | (target == 3)).nonzero().flatten()
    for weight, bias in (
        fit_probe(rows[few], target[few]),
        whitened_head(rows, target, few, source),
    ):
        assert weight.shape == (4, rows.shape[1])
        assert (bias == ABSENT).tolist() == [True, False, True, False]
        assert set((rows @ weight.T + bias).argmax(dim=1).tolist()) == {1, 3}


def test_what_cannot_be_learned_is_refused(products):
    rows, target, source = products
    few = (target >= 0).nonzero().flatten()[::7]
    with pytest.raises(TrainingError, match="within at least two"):
        whitened_head(rows, target, few, torch.full_like(source, -1))
