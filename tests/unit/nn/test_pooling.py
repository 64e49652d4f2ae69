"""The scorer's formula in NumPy is the module that was trained."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from newshelf.nn.numpy_scorer import Pooling
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
