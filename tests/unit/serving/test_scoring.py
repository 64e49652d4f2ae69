"""Scores by the formula, by precomputed terms and with bounds: the answers are the same."""

from dataclasses import replace

import numpy as np
import pytest

from newshelf.errors import VersionMismatch
from newshelf.nn.blend import ContentBound
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import load_index
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.serving.scoring import check_pooling
from tests.unit.export.tiny_checkpoint import BLEND_WEIGHTS, tiny_blend

VERSION = "0123456789ab"
JADE = {"id": "new", "title": "green jade ring", "material": "jade", "color": "green"}
BODIES = [
    {"history": ["i00", "i05"], "k": 30, "explain": True},
    {"history": [JADE, "i02", "gone"], "candidates": ["i05", "i06", {**JADE, "id": "other"}]},
    {"history": [f"i{n:02}" for n in range(9)], "candidates": [f"i{n:02}" for n in range(5, 30)]},
    {"history": ["i07"], "filters": {"material": "jade"}, "diversity": 0.5, "explain": True},
    {"history": []},
    {"history": ["i01"], "candidates": ["i02", "i03", JADE], "exclude": ["i02", "new"]},
    {"history": ["i01"], "candidates": ["i01", "i04"]},
]


@pytest.fixture(scope="module")
def index(bundle):
    return load_index(bundle / "index", encoder_version=VERSION)


@pytest.fixture(scope="module")
def serve(recommender, settings):
    def build(index) -> RecommenderPredictor:
        return RecommenderPredictor(
            recommender.encoder,
            recommender.scorer,
            index,
            model_version=VERSION,
            limits=settings.limits,
            retrieve=12,
        )

    return build


def blended(index, weights=BLEND_WEIGHTS):
    return replace(index, blend=tiny_blend(BlendSpec(weights=weights), 30))


def assert_equal_answers(wanted, given):
    for (status, expected), (given_status, answer) in zip(wanted, given, strict=True):
        assert (status, given_status) == (200, 200)
        for one, item in zip(expected["items"], answer["items"], strict=True):
            assert item["score"] == pytest.approx(one["score"], abs=2e-4)
            assert {**item, "score": 0} == {**one, "score": 0}


@pytest.mark.parametrize("length", [1, 3, 4])
def test_the_formula_is_that_of_the_graph(recommender, pooling, unit_rows, length):
    history, candidates = unit_rows(length, 16), unit_rows(9, 16, seed=1)
    inputs = {
        "history": history[None],
        "history_mask": np.ones((1, length), dtype=np.bool_),
        "candidates": candidates[None],
    }
    wanted = recommender.scorer.scorer.run(inputs)
    similarity = pooling.similarity(history, candidates)
    assert pooling.scores(similarity) == pytest.approx(wanted["scores"][0], abs=2e-4)
    assert (pooling.counted_most(similarity) == wanted["attention"][0].argmax(axis=1)).all()


def test_precomputed_terms_answer_as_the_formula(serve, index, post):
    by_terms, by_formula = serve(blended(index)), serve(blended(index))
    assert by_terms._ranker.pairs is not None
    by_formula._ranker = replace(by_formula._ranker, pairs=None)
    assert_equal_answers(post(by_formula, *BODIES), post(by_terms, *BODIES))


@pytest.mark.parametrize("content", [-0.8, 0.0, 3.0])
def test_bounds_leave_out_only_what_is_not_answered(serve, index, post, content):
    index = blended(index, {**BLEND_WEIGHTS, "content": content})
    bounded, plain = serve(index), serve(index)
    # Narrow heads, so that the bounds are wide.
    bound = ContentBound(index.embeddings, 8)
    bounded._ranker = replace(bounded._ranker, bound=bound, pairs=None)
    plain._ranker = replace(plain._ranker, bound=None, pairs=None)
    bodies = [{**body, "k": k} for body in BODIES for k in (1, 3)]
    assert_equal_answers(post(plain, *bodies), post(bounded, *bodies))


@pytest.mark.parametrize("number", ["sharpness", "weight", "scale"])
def test_numbers_of_another_scorer_are_refused(recommender, pooling, number):
    graph = recommender.scorer.scorer
    check_pooling(pooling, graph, 16)
    other = pooling.model_copy(update={number: getattr(pooling, number) * 1.1})
    with pytest.raises(VersionMismatch, match="from one checkpoint"):
        check_pooling(other, graph, 16)


@pytest.mark.parametrize("scale", [2.0, None])
def test_an_index_with_numbers_of_another_scorer_is_not_served(serve, index, pooling, scale):
    other = scale and pooling.model_copy(update={"scale": scale})
    manifest = index.manifest.model_copy(update={"pooling": other})
    with pytest.raises(VersionMismatch):
        serve(replace(index, manifest=manifest))


def test_scores_keep_their_type(pooling):
    rows = np.eye(4, dtype=np.float32)
    assert pooling.scores(pooling.similarity(rows, rows)).dtype == np.float32
