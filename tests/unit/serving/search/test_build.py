"""The search of a matrix with many lists: each row is compared with some of the centroids only."""

import numpy as np
import pytest

from newshelf.serving.search import ann, build
from newshelf.serving.search.ann import AnnSearch, Lists
from newshelf.serving.search.base import open_search
from newshelf.serving.search.build import build_search

ROWS, WIDTH = 100_001, 24


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Rows on the disk."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((300, WIDTH))
    drawn = centres[rng.integers(300, size=ROWS)] + 0.7 * rng.standard_normal((ROWS, WIDTH))
    path = tmp_path_factory.mktemp("matrix") / "rows.f32"
    unit(drawn).tofile(path)
    return np.asarray(np.memmap(path, dtype=np.float32, mode="r", shape=(ROWS, WIDTH)))


@pytest.fixture(scope="module")
def search(matrix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_CANDIDATES", 200)
        patch.setattr(build, "_BLOCK_ROWS", 30_000)
        manifest, kept = build_search(matrix, folder, "rows")
    found = open_search(matrix, folder, "rows", manifest, kept)
    assert isinstance(found, AnnSearch)
    return found


def queries(matrix, count=60):
    rng = np.random.default_rng(4)
    return unit(matrix[rng.choice(ROWS, count)] + 0.1 * rng.standard_normal((count, WIDTH)))


def test_every_row_is_in_a_list_and_nearly_all_in_the_nearest(matrix, search):
    lists = search.lists
    assert len(lists.sizes) > 1200
    np.testing.assert_array_equal(np.sort(lists.members), np.arange(ROWS))
    which = np.repeat(np.arange(len(lists.sizes)), lists.sizes)
    some = np.random.default_rng(5).choice(ROWS, 2000, replace=False)
    nearest = (matrix[lists.members[some]] @ lists.centroids.T).argmax(axis=1)
    assert np.mean(nearest == which[some]) > 0.9


@pytest.mark.parametrize("share", [1.0, 0.3, 0.04])
def test_recall_is_what_is_promised(matrix, search, share):
    allowed = np.random.default_rng(6).random(ROWS) < share
    found, rows = 0, np.flatnonzero(allowed)
    for query in queries(matrix):
        least = np.partition(matrix[rows] @ query, -100)[-100]
        answer = search.nearest(query, allowed, 100)
        assert len(answer) == 100
        assert allowed[answer].all()
        found += np.sum(matrix[answer] @ query >= least - 1e-6)
    assert found / (100 * 60) >= 0.95
    assert search.budget(100) < ROWS / 4


def test_a_matrix_that_is_larger_than_the_memory_gives_the_same_answers(
    matrix, search, monkeypatch
):
    allowed = np.ones(ROWS, dtype=bool)
    before = [search.nearest(query, allowed, 50) for query in queries(matrix)]
    monkeypatch.setattr(ann, "_MEMORY", 0)
    after = [search.nearest(query, allowed, 50) for query in queries(matrix)]
    np.testing.assert_array_equal(before, after)


def test_rows_that_pass_are_counted_in_empty_lists_too():
    members = np.arange(6, dtype=np.int32)
    centroids = np.eye(4, dtype=np.float32)
    lists = Lists(centroids, np.array([0, 3, 0, 3]), members)
    allowed = np.array([True, False, True, False, False, True])
    query = np.array([4, 3, 2, 1], dtype=np.float32)
    # The second list has two that pass, the fourth one.
    assert lists.near(query, 3, allowed, 2, 9).tolist() == [1]
    assert lists.near(query, 3, allowed, 3, 3).tolist() == [1, 3]
    assert lists.near(query, 3, allowed, 3, 9).tolist() == [1, 3]
