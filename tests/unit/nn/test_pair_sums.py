"""Sums of kept terms are what the formulas give pair by pair."""

import math

import numpy as np
import pytest

from newshelf.nn.blend_lookup import PairSums
from newshelf.nn.numpy_scorer import Pooling

POOLING = Pooling(sharpness=4.0, weight=0.7, scale=14.0)
TEMPERATURE = 0.1


def unit_rows(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def embeddings():
    return unit_rows(30, 24, 1)


@pytest.fixture
def vectors():
    return unit_rows(30, 8, 2)


@pytest.fixture
def pairs(embeddings, vectors):
    return PairSums.of(embeddings, vectors, POOLING, TEMPERATURE)


@pytest.mark.parametrize("history", [[4], [3, 8, 29], [7, 7, 2, 7], list(range(30))])
@pytest.mark.parametrize("candidates", [[0], [29, 3, 11], list(range(30))])
def test_the_scorer_pair_by_pair(pairs, vectors, history, candidates):
    found = pairs.scores(np.array(history), np.array(candidates))
    assert found.dtype == np.float32
    for at, candidate in enumerate(candidates):
        cosines = [float(vectors[candidate] @ vectors[item]) for item in history]
        paid = [math.exp(POOLING.sharpness * cosine) for cosine in cosines]
        attended = sum(a * s for a, s in zip(paid, cosines, strict=True)) / sum(paid)
        mean = sum(cosines) / len(cosines)
        expected = (POOLING.weight * attended + (1 - POOLING.weight) * mean) * POOLING.scale
        assert found[at] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("history", [[4], [3, 8, 29], list(range(30))])
def test_the_content_pair_by_pair(pairs, embeddings, history):
    candidates = [29, 3, 11, 4]
    found = pairs.content(np.array(history), np.array(candidates))
    assert found.dtype == np.float32
    for at, candidate in enumerate(candidates):
        terms = [
            math.exp((float(embeddings[candidate] @ embeddings[item]) - 1) / TEMPERATURE)
            for item in history
        ]
        assert found[at] == pytest.approx(math.log(sum(terms)), abs=1e-4)


def test_for_a_few_candidates_the_terms_are_made_anew(pairs):
    assert not pairs.worthwhile(1)
    assert pairs.worthwhile(2)


def test_none_are_kept_where_they_cannot_be(embeddings, vectors):
    assert PairSums.of(embeddings, None, POOLING, TEMPERATURE) is None
    assert PairSums.of(embeddings, vectors, None, TEMPERATURE) is None
    # exp(-100) and exp(-200) are no float32.
    assert PairSums.of(embeddings, vectors, POOLING, 0.02) is None
    sharp = POOLING.model_copy(update={"sharpness": 100.0})
    assert PairSums.of(embeddings, vectors, sharp, TEMPERATURE) is None
    many = unit_rows(2_001, 2, 3)
    assert PairSums.of(many, many, POOLING, TEMPERATURE) is None
