"""By the formula or by the graph: the answers are the same."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from newshelf.config import Limits
from newshelf.errors import VersionMismatch
from newshelf.nn.blend import ContentBound
from newshelf.nn.numpy_scorer import Pooling
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import load_index
from newshelf.serving.live import LiveIndex
from newshelf.serving.protocol import RawRequest
from newshelf.serving.ranking import ModelRanker
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.serving.requests import parse_recommend
from newshelf.serving.resolve import resolve
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
def pooling(scorer) -> Pooling:
    score = scorer.score
    return Pooling(
        sharpness=score.log_sharpness.exp().item(),
        weight=score.weight_logit.sigmoid().item(),
        scale=score.log_scale.exp().item(),
    )


@pytest.fixture(scope="module")
def index(bundle):
    return load_index(bundle / "index", encoder_version=VERSION)


@pytest.fixture(scope="module")
def serve(recommender, settings):
    def build(index) -> RecommenderPredictor:
        return RecommenderPredictor(
            recommender._encoder,
            recommender.scorer,
            index,
            model_version=VERSION,
            limits=settings.limits,
            retrieve=12,
        )

    return build


def with_pooling(index, pooling: Pooling):
    return replace(index, manifest=index.manifest.model_copy(update={"pooling": pooling}))


@pytest.mark.parametrize(("blended", "pairs"), [(False, False), (True, False), (True, True)])
def test_the_formula_answers_as_the_graph_does(serve, index, pooling, post, blended, pairs):
    if blended:
        index = replace(index, blend=tiny_blend(BlendSpec(weights=BLEND_WEIGHTS), 30))
    by_graph = post(serve(index), *BODIES)
    predictor = serve(with_pooling(index, pooling))
    assert (predictor._ranker.keywords["pairs"] is not None) is blended
    if not pairs:
        predictor._ranker = partial(predictor._ranker, pairs=None)
    by_formula = post(predictor, *BODIES)
    for (status, wanted), (given_status, given) in zip(by_graph, by_formula, strict=True):
        assert (status, given_status) == (200, 200)
        for expected, item in zip(wanted["items"], given["items"], strict=True):
            assert item["score"] == pytest.approx(expected["score"], abs=2e-4)
            assert {**item, "score": 0} == {**expected, "score": 0}


@pytest.mark.parametrize("content", [-0.8, 0.0, 3.0])
def test_bounds_leave_out_only_what_is_not_answered(serve, index, pooling, post, content):
    weights = {**BLEND_WEIGHTS, "content": content}
    index = replace(index, blend=tiny_blend(BlendSpec(weights=weights), 30))
    bounded, plain = serve(with_pooling(index, pooling)), serve(with_pooling(index, pooling))
    # Narrow heads, so that the bounds are wide.
    bound = ContentBound(index.embeddings, 8)
    bounded._ranker = partial(bounded._ranker, bound=bound, pairs=None)
    plain._ranker = partial(plain._ranker, bound=None, pairs=None)
    bodies = [{**body, "k": k} for body in BODIES for k in (1, 3)]
    for (_, wanted), (_, given) in zip(post(plain, *bodies), post(bounded, *bodies), strict=True):
        for expected, item in zip(wanted["items"], given["items"], strict=True):
            assert item["score"] == pytest.approx(expected["score"], abs=2e-4)
            assert {**item, "score": 0} == {**expected, "score": 0}


def test_the_graph_is_given_padded_arrays(index):
    class Looking:
        def run(self, inputs):
            assert inputs["history"].shape == (2, 3, 16)
            assert inputs["candidates"].shape == (2, 12, 16)
            assert inputs["history_mask"].tolist() == [[True, False, False], [True] * 3]
            raise InterruptedError

    asked = [
        parse_recommend(RawRequest({"body": body}, "application/json"), Limits())
        for body in (b'{"history": ["i00"], "k": 3}', b'{"history": ["i01", "i02", "i03"]}')
    ]
    rows = [resolve(item, {}, LiveIndex.of(index), 4) for item in asked]
    with pytest.raises(InterruptedError):
        ModelRanker(Looking(), None, None, None, 12).rank(rows)


@pytest.mark.parametrize("number", ["sharpness", "weight", "scale"])
def test_numbers_of_another_scorer_are_refused(recommender, pooling, number):
    graph = recommender.scorer.scorer
    check_pooling(pooling, graph, 16)
    other = pooling.model_copy(update={number: getattr(pooling, number) * 1.1})
    with pytest.raises(VersionMismatch, match="from one checkpoint"):
        check_pooling(other, graph, 16)


def test_an_index_with_numbers_of_another_scorer_is_not_served(serve, index, pooling):
    other = pooling.model_copy(update={"scale": 2.0})
    with pytest.raises(VersionMismatch):
        serve(with_pooling(index, other))


def test_scores_keep_their_type(pooling):
    rows = np.eye(4, dtype=np.float32)
    assert pooling.scores(pooling.similarity(rows, rows)).dtype == np.float32
