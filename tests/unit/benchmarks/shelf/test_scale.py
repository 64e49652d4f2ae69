"""The drawn catalogue is an index as any other, on a small scale."""

import numpy as np
import pytest

from benchmarks.shelf import scale
from benchmarks.shelf.catalogue import VERSION, draw, histories, write_catalogue
from newshelf.serving.index import load_index

ITEMS = 4_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "index"
    write_catalogue(folder, ITEMS)
    return folder


def test_what_is_drawn_can_be_recommended(folder):
    predictor = scale.open_recommender(folder)
    for history in histories(draw(ITEMS), 5, seed=1):
        busy_ms, took_ms = scale._answer(predictor, history, {"product_type": "Shop"})
        assert busy_ms > 0
        assert took_ms > 0


def test_products_of_a_kind_are_neighbours(folder):
    index = load_index(folder / "index", encoder_version=VERSION)
    drawn = draw(ITEMS)
    rows = np.repeat(np.arange(ITEMS), np.diff(index.blend.neighbours.indptr))
    assert (drawn.kind[rows] == drawn.kind[index.blend.neighbours.indices]).all()
    np.testing.assert_allclose(index.blend.neighbours.sum(axis=1), 1, rtol=1e-5)
    assert {*index.blend.links.indices.tolist()} <= {*drawn.linked.tolist()}
    np.testing.assert_allclose(np.linalg.norm(index.embeddings, axis=1), 1, rtol=1e-5)


def test_equal_seeds_draw_equal_histories():
    drawn = draw(ITEMS)
    one, other = (
        [history.tolist() for history in histories(drawn, 5, seed=seed)] for seed in (1, 1)
    )
    assert one == other
    for history in one:
        assert 1 <= len(history) == len({*history}) <= 30
