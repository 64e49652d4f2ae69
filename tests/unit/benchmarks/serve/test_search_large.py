import numpy as np
import pytest

from benchmarks.serve import search_large
from benchmarks.serve.search import truth
from benchmarks.serve.search_large import measure, merge_ms, nearest, slowest


@pytest.fixture
def real():
    rows = np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_nearest_of_blocks_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(search_large, "_BLOCK", 70)
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((500, 8)).astype(np.float32)
    queries = rng.standard_normal((4, 8)).astype(np.float32)
    half = rng.random(500) < 0.5
    # A block without any.
    half[70:140] = False
    masks = {1.0: np.ones(500, dtype=bool), 0.5: half}
    found = nearest(matrix, queries, masks, 20)
    for share, mask in masks.items():
        for one, other in zip(found[share], truth(matrix, queries, mask, 20), strict=True):
            assert set(one) == set(other)


def test_a_process_reports_answers_and_memory(real, tmp_path, monkeypatch):
    monkeypatch.setattr(search_large, "_SIZE", 3000)
    monkeypatch.setattr(search_large, "_WARM_UP", 6)
    found = measure(real, tmp_path, real[:10])
    assert list(found.found) == [1.0, 0.5, 0.1, 0.01]
    assert all(len(one.answers) == 4 for one in found.found.values())
    assert 0 < found.anonymous < found.total


def test_more_shards_are_as_slow_as_their_slowest():
    rng = np.random.default_rng(2)
    ms = [1.0] * 99 + [9.0]
    assert np.median(slowest(ms, 1, rng)) == 1
    assert 0.004 < np.mean(slowest(ms, 1, rng) == 9) < 0.02
    # 1 - 0.99 ** 200
    assert 0.8 < np.mean(slowest(ms, 200, rng) == 9) < 0.93
    assert merge_ms(3, rng) > 0
