"""The scorer in NumPy compared with the trained module, and precomputed pair terms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from newshelf.nn.numpy_scorer import PairSums, Pooling
from newshelf.nn.scorer import HistoryScorer


def unit_rows(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@torch.no_grad()
def trained(pooling: Pooling) -> HistoryScorer:
    scorer = HistoryScorer()
    scorer.log_sharpness.fill_(math.log(pooling.sharpness))
    scorer.weight_logit.fill_(math.log(pooling.weight / (1 - pooling.weight)))
    scorer.log_scale.fill_(math.log(pooling.scale))
    return scorer


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.floats(0.1, 300),
    st.floats(0.01, 0.99),
    st.floats(0.1, 50),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_scores_and_attention_are_the_modules(sharpness, weight, scale, many, candidates, seed):
    """Also where the attention is so sharp that its exponents need a maximum."""
    pooling = Pooling(sharpness=sharpness, weight=weight, scale=scale)
    rows = unit_rows(many + candidates, 8, seed)
    # Opposite to one another, and met before: the ends of what a cosine can be.
    rows[-1] = -rows[0]
    history, asked = rows[:many], np.concatenate([rows[many:], rows[:1]])
    with torch.no_grad():
        scores, attention = trained(pooling)(
            torch.from_numpy(history)[None],
            torch.ones(1, many, dtype=torch.bool),
            torch.from_numpy(asked)[None],
        )
    similarity = pooling.similarity(history, asked)
    np.testing.assert_allclose(
        pooling.scores(similarity), scores[0].numpy(), rtol=1e-4, atol=1e-5 * scale
    )
    most = pooling.counted_most(similarity)
    given_to_it = attention[0].numpy()[np.arange(len(asked)), most]
    np.testing.assert_allclose(given_to_it, attention[0].numpy().max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("number", ["sharpness", "scale", "weight"])
def test_numbers_that_no_training_gives_are_refused(number):
    numbers = {"sharpness": 4.0, "weight": 0.5, "scale": 14.0}
    with pytest.raises(ValidationError):
        Pooling(**{**numbers, number: float("nan")})


POOLING = Pooling(sharpness=4.0, weight=0.7, scale=14.0)
TEMPERATURE = 0.1


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
