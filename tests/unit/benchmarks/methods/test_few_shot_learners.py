"""Episodes, prototypes, probe, whitening and MAML behind the one few-shot interface."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from benchmarks.methods.meta.episodes import EpisodeSampler
from benchmarks.methods.meta.learners import (
    Ensemble,
    LinearProbe,
    Prototypes,
    RefinedPrototypes,
)
from newshelf.errors import TrainingError
from newshelf.training.few_shot import fit_whitening
from tests.unit.benchmarks.methods.few_shot import WAYS, accuracy, maml_learner
from tests.unit.training.synthetic import WIDTH, clusters, noisy_types

LEARNERS = {
    "prototypes": Prototypes(),
    "cosine": Prototypes("cosine"),
    "refined": RefinedPrototypes(),
    "probe": LinearProbe(),
    "maml": maml_learner(prototypes=False),
    "protomaml": maml_learner(prototypes=True),
    "ensemble": Ensemble([(Prototypes(), slice(0, 6)), (LinearProbe(), slice(6, None))]),
}


@pytest.fixture(params=LEARNERS)
def learner(request):
    return LEARNERS[request.param]


# Every learner


def test_clear_classes_are_told_apart(learner, support):
    rows, labels = support
    scores = learner(rows, labels, rows)
    assert scores.shape == (len(rows), WAYS)
    assert scores.dtype == torch.float32
    assert (scores.argmax(dim=1) == labels).float().mean() > 0.9


# Episodes


def test_an_episode_has_its_shots_and_queries_of_different_rows():
    labels = torch.tensor([0] * 9 + [1] * 8 + [2] * 7 + [3] * 9 + [-1] * 5)
    sampler = EpisodeSampler(labels, ways=3, shots=3, queries=5)
    # Class 2 has 7 rows and is too small; 0, 1 and 3 are left.
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = sampler.draw(generator)
        rows = torch.cat([drawn.support, drawn.queries])
        assert len(torch.unique(rows)) == 3 * (3 + 5)
        assert drawn.support_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
        for at in range(3):
            of_class = torch.cat(
                [
                    labels[drawn.support[drawn.support_labels == at]],
                    labels[drawn.queries[drawn.query_labels == at]],
                ]
            )
            assert len(torch.unique(of_class)) == 1
        assert set(labels[rows].tolist()) == {0, 1, 3}


def test_the_generator_decides_the_episodes():
    labels = torch.arange(4).repeat(20)
    sampler = EpisodeSampler(labels, ways=2, shots=1, queries=3)
    batches = sampler.batches(tasks=3, steps=2)
    first, again, other = (batches(0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert len(first) == 2
    assert first[0].support.shape == (3, 2)
    assert first[0].queries.shape == (3, 6)
    assert torch.equal(first[1].queries, again[1].queries)
    assert not torch.equal(first[1].queries, other[1].queries)


def test_fewer_labels_than_shots_are_refused():
    labels = torch.tensor([0] * 9 + [1] * 3)
    with pytest.raises(TrainingError, match=r"1 of 2 classes .*3 \+ 2 rows"):
        EpisodeSampler(labels, ways=2, shots=3, queries=2)


# Prototypes and probe


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_prototypes_equal_the_loop(support, metric):
    rows, labels = support
    queries = clusters(torch.arange(WAYS), WIDTH, 2.0, seed=2)
    scores = Prototypes(metric)(rows, labels, queries)
    for q, query in enumerate(queries):
        for n in range(WAYS):
            mean = sum(row for row, label in zip(rows, labels, strict=True) if label == n) / 4
            if metric == "cosine":
                expected = float(query @ mean / query.norm() / mean.norm())
            else:
                expected = -float(((query - mean) ** 2).sum())
            assert float(scores[q, n]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_refined_prototypes_equal_the_loop(support):
    rows, labels = support
    queries = clusters(torch.arange(WAYS).repeat(5), WIDTH, 1.5, seed=2)
    learner = RefinedPrototypes(sharpness=4.0, rounds=3)
    scores = learner(rows, labels, queries)
    unit = [query / query.norm() for query in queries]
    shares = [[0.0] * WAYS for _ in unit]
    for _ in range(4):
        means = []
        for n in range(WAYS):
            total, weight = torch.zeros(WIDTH), 0.0
            for row, label in zip(rows, labels, strict=True):
                if label == n:
                    total, weight = total + row / row.norm(), weight + 1
            for query, share in zip(unit, shares, strict=True):
                total, weight = total + share[n] * query, weight + share[n]
            means.append(total / weight)
        expected = torch.stack([torch.stack([q @ m / m.norm() for m in means]) for q in unit])
        shares = (4.0 * expected).softmax(dim=1).tolist()
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_unlabelled_rows_show_where_a_class_is():
    rows, labels = noisy_types(24, 40)
    rows = whitened(rows, torch.where(labels < 14, labels, -1))
    unseen = EpisodeSampler(torch.where(labels >= 14, labels, -1), ways=3, shots=1, queries=20)
    alone = accuracy(Prototypes("cosine"), rows, unseen)
    assert accuracy(RefinedPrototypes(), rows, unseen) > alone + 0.03


@pytest.mark.parametrize("ways", [2, 3])
def test_the_probe_equals_scikit_learn(support, ways):
    rows, labels = support
    rows, labels = rows[labels < ways], labels[labels < ways]
    queries = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(0))
    scores = LinearProbe(3.0)(rows, labels, queries)
    model = LogisticRegression(C=3.0, max_iter=1000)
    model.fit(F.normalize(rows, dim=1).numpy(), labels.numpy())
    # Two classes: scikit-learn's model is a logistic one, and so is ours.
    expected = model.predict_proba(F.normalize(queries, dim=1).numpy())
    np.testing.assert_allclose(scores.softmax(dim=1).numpy(), expected, atol=1e-5)


# Whitening


def whitened(rows, labels):
    mean, matrix = fit_whitening(rows, labels, shrinkage=0.1)
    return F.normalize((rows - mean) @ matrix, dim=1)


def test_whitening_from_some_types_helps_others():
    rows, labels = noisy_types(24, 40)
    white = whitened(rows, torch.where(labels < 14, labels, -1))
    unseen = EpisodeSampler(torch.where(labels >= 14, labels, -1), ways=5, shots=2, queries=8)
    assert accuracy(Prototypes(), white, unseen) > accuracy(Prototypes(), rows, unseen) + 0.2


# Ensemble


def test_an_ensemble_is_the_geometric_mean_of_its_members():
    labels = torch.arange(WAYS).repeat(4)
    rows, queries = clusters(labels, WIDTH, 1.0, seed=2), clusters(labels, WIDTH, 1.0, seed=3)
    near, probe = Prototypes(), LinearProbe(3.0)
    ensemble = Ensemble([(near, slice(0, 5)), (probe, slice(5, None))])
    scores = ensemble(rows, labels, queries)
    first = near(rows[:, :5], labels, queries[:, :5]).softmax(dim=1)
    second = probe(rows[:, 5:], labels, queries[:, 5:]).softmax(dim=1)
    torch.testing.assert_close(scores.exp(), (first * second).sqrt())
