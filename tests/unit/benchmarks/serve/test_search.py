import numpy as np
import pytest

from benchmarks.serve import search
from benchmarks.serve.search import (
    codes_path,
    grown,
    make,
    recall,
    streaming,
    timed,
    truth,
    write_grown,
)
from newshelf.serving.search.base import PlainSearch


@pytest.fixture
def real():
    rows = np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_grown_vectors_lie_near_the_real_ones(real):
    made = grown(real, 500, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    # Far nearer than a random direction, and none of them a copy.
    nearest = (made @ real.T).max(axis=1)
    assert np.median(nearest) > 0.7
    assert nearest.max() < 0.9999


def test_the_same_seed_makes_the_same_and_a_file_is_used_again(real, tmp_path):
    first = np.array(write_grown(real, 300, tmp_path / "a", 5))
    np.testing.assert_array_equal(first, write_grown(real, 300, tmp_path / "b", 5))
    assert (first != write_grown(real, 300, tmp_path / "c", 6)).any()
    before = (tmp_path / "a").stat().st_mtime_ns
    write_grown(real, 300, tmp_path / "a", 5)
    assert (tmp_path / "a").stat().st_mtime_ns == before


def test_an_interrupted_file_is_continued(real, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", 100)
    whole = np.array(write_grown(real, 350, tmp_path / "a", 5))
    data = (tmp_path / "a").read_bytes()
    # A block and a half.
    (tmp_path / "b.part").write_bytes(data[: len(data) * 150 // 350])
    np.testing.assert_array_equal(write_grown(real, 350, tmp_path / "b", 5), whole)
    assert not (tmp_path / "b.part").exists()


def test_recall_counts_what_was_found_and_refuses_short_answers():
    true = [np.array([1, 2, 3, 4])]
    assert recall([np.array([1, 2, 3, 9])], true) == 0.75
    with pytest.raises(AssertionError, match=r"3 rows .* 4"):
        recall([np.array([1, 2, 3])], true)
    with pytest.raises(AssertionError):
        recall([np.array([1, 1, 2, 3])], true)


def test_a_search_is_made_once_and_answers(real, tmp_path):
    made = make(real, 400, tmp_path)
    assert make(real, 400, tmp_path).build_s == made.build_s
    search = made.open()
    assert isinstance(search, PlainSearch)
    allowed = np.ones(400, dtype=bool)
    found = timed(search.nearest, real[:7], allowed, 10)
    assert len(found.ms) == 7
    assert recall(found.answers, truth(made.matrix, real[:7], allowed, 10)) == 1
    codes_path(made).write_bytes(bytes(800))
    with streaming(codes_path(made)) as read:
        assert read() > 0


def test_what_is_measured_before_a_query_is_no_part_of_its_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(search.time, "perf_counter", lambda: clock[0])

    def taking(seconds):
        clock[0] += seconds
        return clock[0]

    allowed = np.ones(3, dtype=bool)
    found = timed(lambda *_: taking(2), np.eye(3), allowed, 1, before=lambda: taking(10))
    assert found.ms == [2000, 2000, 2000]
    # The first query is asked once more, before anything counts.
    assert found.before == [12, 24, 36]
