"""The probe compared with scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from newshelf.errors import TrainingError
from newshelf.training.probe import fit_probe


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns(classes):
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(30) % classes
    features = torch.randn(30, 5, generator=generator) + target.unsqueeze(1)
    names = tuple("abc"[:classes])
    probe = fit_probe(features, target, names, seed=0, strengths=(10.0,))
    theirs = LogisticRegression(C=10.0, max_iter=400).fit(features.numpy(), target.numpy())
    ours = probe.logits(features).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(features.numpy()), atol=1e-5)
    assert (probe.predict(features).numpy() == theirs.predict(features.numpy())).all()


def test_a_few_shots_take_the_default_and_many_are_cross_validated():
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(200) % 2
    # Almost nothing can be told from these: the strongest penalty predicts best.
    noise = torch.randn(200, 40, generator=generator)
    few = fit_probe(noise[:10], target[:10], ("a", "b"), seed=0)
    many = fit_probe(noise, target, ("a", "b"), seed=0, strengths=(1e-3, 1e3))
    assert few.strength == 100.0
    assert many.strength == 1e-3


def test_features_that_are_not_numbers_are_refused_by_row():
    features = torch.ones(6, 2)
    features[4, 1] = float("nan")
    with pytest.raises(TrainingError, match=r"1 of 6 products .*rows 4"):
        fit_probe(features, torch.tensor([0, 1] * 3), ("a", "b"), seed=0)
