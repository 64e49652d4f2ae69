"""The bounds hold, whatever the embeddings are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.nn.blend import ContentBound, content_signal


def embeddings_of(count: int, width: int, decay: float, seed: int) -> np.ndarray:
    """Unit rows whose directions matter less and less; with a decay of 1, all the same."""
    rows = np.random.default_rng(seed).standard_normal((count, width))
    rows *= decay ** np.arange(width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.integers(1, 40),
    st.sampled_from([0.5, 0.8, 0.95, 1.0]),
    st.floats(0.02, 2),
    st.integers(1, 24),
    st.integers(0, 999),
    st.data(),
)
def test_the_signal_is_within_reach(count, decay, temperature, width, seed, data):
    embeddings = embeddings_of(count, 24, decay, seed)
    bound = ContentBound(embeddings, width)
    rows = st.integers(0, count - 1)
    history = np.array(data.draw(st.lists(rows, min_size=1, max_size=6)))
    candidates = np.arange(count)
    exact = content_signal(embeddings[history] @ embeddings.T, temperature)
    found, off = bound.content(history, candidates, temperature)
    # Beside the bound, only what float32 rounds off.
    assert (np.abs(found - exact) <= off + 1e-5 / temperature).all()


def test_a_head_of_what_matters_is_enough():
    embeddings = embeddings_of(50, 64, 0.5, 0)
    bound = ContentBound.of(embeddings)
    assert bound is not None
    _, off = bound.content(np.array([0, 1]), np.arange(50), 0.1)
    assert off.max() < 0.05


@pytest.mark.parametrize("width", [2, 64])
def test_where_nothing_is_saved_there_is_none(width):
    """Too narrow to be split, or the same in all directions."""
    assert ContentBound.of(embeddings_of(500, width, 1.0, 0)) is None
