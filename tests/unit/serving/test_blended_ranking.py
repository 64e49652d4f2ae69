"""Served scores are those of the training, and of a loop over every signal."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from newshelf.nn.blend import NEAREST, Blend
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import load_index
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.training.ranking import BlendRanker, Ranking
from tests.unit.export.tiny_checkpoint import BLEND_WEIGHTS, tiny_blend

VERSION = "0123456789ab"
JADE = {"id": "new", "title": "green jade ring", "material": "jade", "color": "green"}
LAMP = {"id": "lamp", "title": "red gold lamp", "material": "gold"}
HISTORIES = [["i00"], ["i03", "i20", "i08"], [f"i{n:02}" for n in range(9)]]
"""The last one is longer than the four items that the scorer reads."""


@pytest.fixture(scope="module")
def index(bundle):
    plain = load_index(bundle / "index", encoder_version=VERSION)
    return replace(plain, blend=tiny_blend(BlendSpec(weights=BLEND_WEIGHTS), 30))


@pytest.fixture(scope="module")
def serve(recommender, settings):
    """A recommender over an index."""

    def build(index, retrieve: int = 30) -> RecommenderPredictor:
        return RecommenderPredictor(
            recommender.encoder,
            recommender.scorer,
            index,
            model_version=VERSION,
            limits=settings.limits,
            retrieve=retrieve,
        )

    return build


@pytest.mark.parametrize("filters", [{}, {"brand": "aurora"}])
@pytest.mark.parametrize("history", HISTORIES)
def test_lists_of_links_change_no_answer_where_few_are_scored(serve, index, post, filters, history):
    lists = replace(index, linked=BlendLookup(index.blend).lists())
    body = {"history": history, "k": 5, "filters": filters}
    for retrieve in (5, 30):
        [(_, plain)] = post(serve(index, retrieve), body)
        [(_, other)] = post(serve(lists, retrieve), body)
        assert other["items"] == plain["items"]


@pytest.fixture(scope="module")
def embed(encoder_predictor, post):
    def embedding(product) -> np.ndarray:
        [(_, answer)] = post(encoder_predictor, product)
        return np.array(answer["embedding"], dtype=np.float32)

    return embedding


def naive_shares(embedding: np.ndarray, indexed: np.ndarray) -> np.ndarray:
    """(N,): how much of each item an unseen product stands for."""
    cosines = indexed @ embedding
    nearest = np.argsort(-cosines)[:NEAREST]
    shares = np.zeros(len(indexed))
    shares[nearest] = np.exp(cosines[nearest] / 0.05) / np.exp(cosines[nearest] / 0.05).sum()
    return shares


@torch.no_grad()
def naive_score(index, scorer, history: list, candidate) -> float:
    """``history`` and ``candidate`` are rows of the index, or embeddings from outside."""

    def embedding(ref) -> np.ndarray:
        return index.embeddings[ref] if isinstance(ref, int) else ref

    def stands_for(ref) -> np.ndarray:
        if isinstance(ref, int):
            return np.eye(len(index))[ref]
        return naive_shares(ref, index.embeddings)

    blend = index.blend
    asked = np.zeros(len(index))
    for ref in history:
        asked += stands_for(ref)
    asked[[ref for ref in history if isinstance(ref, int)]] = 1
    place = stands_for(candidate)
    weights = blend.spec.weights
    score = float(place @ blend.prior)
    links, neighbours = blend.links.toarray(), blend.neighbours.toarray()
    # A product from outside is looked up through what it stands for.
    alike = place if not isinstance(candidate, int) else neighbours[candidate]
    sums = {"similar": asked @ links @ alike, "likewise": asked @ neighbours @ links @ alike}
    own = isinstance(candidate, int) and links[:, candidate].any()
    sums["direct"] = (asked @ links)[candidate] if own else sums["similar"]
    for name, total in sums.items():
        score += weights[name] * math.log(blend.spec.floor + max(0.0, float(total)))
    cosines = [float(embedding(ref) @ embedding(candidate)) for ref in history]
    near = sum(math.exp((cosine - 1) / blend.spec.temperature) for cosine in cosines)
    read = torch.from_numpy(np.stack([embedding(ref) for ref in history[-4:]]))[None]
    mask = torch.ones(1, read.shape[1], dtype=torch.bool)
    asked_for = torch.from_numpy(embedding(candidate)).view(1, 1, -1)
    siamese = float(scorer(read, mask, asked_for))
    return score + weights["content"] * math.log(near) + weights["siamese"] * siamese


@pytest.mark.parametrize("history", HISTORIES)
def test_served_scores_are_those_that_were_evaluated(serve, index, scorer, post, history):
    [(_, answer)] = post(serve(index), {"history": history, "k": 30})
    rows = np.array([index.table.row_of[item] for item in history])
    ranker = BlendRanker(Ranking(scorer, index.blend, []), torch.from_numpy(index.embeddings))
    expected = ranker.scores([rows])[0]
    assert len(answer["items"]) == 30 - 2 - len({*history} - {"i04"})
    for item in answer["items"]:
        assert item["source"] == "model"
        row = index.table.row_of[item["id"]]
        assert item["score"] == pytest.approx(expected[row], abs=1e-3)


@pytest.mark.parametrize("history", HISTORIES)
def test_served_scores_are_those_of_a_loop(serve, index, scorer, post, history):
    body = {"history": history, "candidates": ["i10", "i12", "i29"]}
    [(_, answer)] = post(serve(index), body)
    rows = [index.table.row_of[item] for item in history]
    assert len(answer["items"]) == 3
    for item in answer["items"]:
        expected = naive_score(index, scorer, rows, index.table.row_of[item["id"]])
        assert item["score"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("known", [[], ["i05", "i06"], [f"i{n:02}" for n in range(10, 17)]])
def test_products_the_index_does_not_know_stand_for_their_nearest(
    serve, index, scorer, post, embed, known
):
    """In the history, also before the items that the scorer reads, and among candidates."""
    body = {
        "history": [JADE, *known],
        "candidates": ["i20", LAMP, "i28", {**LAMP, "id": "linen", "title": "linen shirt"}],
    }
    [(_, answer)] = post(serve(index), body)
    history = [embed(JADE), *(index.table.row_of[item] for item in known)]
    inline = {item["id"]: item for item in body["candidates"] if isinstance(item, dict)}
    assert {item["id"] for item in answer["items"]} == {"i20", "i28", *inline}
    for item in answer["items"]:
        name = item["id"]
        asked = embed(inline[name]) if name in inline else index.table.row_of[name]
        expected = naive_score(index, scorer, history, asked)
        assert item["score"] == pytest.approx(expected, abs=2e-3), name


def link(index, source: int, target: int) -> Blend:
    """Nothing counts but that two items were taken together."""
    pair = sparse.csr_array((np.ones(1, dtype=np.float32), ([source], [target])), shape=(30, 30))
    spec = BlendSpec(weights={**dict.fromkeys(BLEND_WEIGHTS, 0.0), "direct": 1.0})
    alone = sparse.csr_array((30, 30), dtype=np.float32)
    return Blend(spec, pair, alone, np.zeros(30, dtype=np.float32))


def test_what_only_a_link_recommends_is_retrieved(serve, index, post):
    """The item whose vector is the furthest from the history's is found, and comes first."""
    allowed = [row for row in range(1, 30) if row not in (4, 11)]
    far = min(allowed, key=lambda row: float(index.vectors[row] @ index.vectors[0]))
    body = {"history": ["i00"], "k": 3}
    [(_, plain)] = post(serve(replace(index, blend=None), 3), body)
    assert index.table.id[far] not in [item["id"] for item in plain["items"]]
    [(_, answer)] = post(serve(replace(index, blend=link(index, 0, far)), 3), body)
    first = answer["items"][0]
    assert (first["id"], first["source"]) == (index.table.id[far], "model")
    assert first["score"] == pytest.approx(math.log(1 + 1e-3), abs=1e-4)


def test_what_is_filtered_or_excluded_is_not_retrieved_by_a_link(serve, index, post):
    body = {"history": ["i00"], "k": 30, "exclude": ["i09"]}
    for hidden in (4, 9):
        [(_, answer)] = post(serve(replace(index, blend=link(index, 0, hidden)), 3), body)
        assert index.table.id[hidden] not in [item["id"] for item in answer["items"]]


def test_rows_of_a_batch_do_not_touch_each_other(serve, index, post):
    bodies = [
        {"history": ["i00"], "k": 3},
        {"history": []},
        {"history": [f"i{n:02}" for n in range(5, 12)], "k": 20, "diversity": 0.4},
        {"history": [JADE, "i02"], "candidates": ["i05", LAMP, "i00"]},
        {"history": ["gone"], "k": 2},
        {"history": [JADE], "filters": {"product_type": "Jewellery"}, "explain": True},
    ]
    predictor = serve(index, 12)
    together = post(predictor, *bodies)
    for body, (status, answer) in zip(bodies, together, strict=True):
        [(_, alone)] = post(predictor, body)
        assert status == 200
        assert {**answer, "request_id": ""} == {**alone, "request_id": ""}
    assert {item["source"] for item in together[1][1]["items"]} == {"popular"}


def test_an_item_counts_once_however_often_it_was_met(serve, index, post):
    scores = []
    only_links = BlendSpec(weights={**BLEND_WEIGHTS, "siamese": 0.0})
    blend = tiny_blend(only_links, 30)
    for history in (["i00", "i07"], ["i00", "i07", "i00", "i07", "i07"]):
        [(_, answer)] = post(serve(replace(index, blend=blend)), {"history": history, "k": 30})
        scores.append({item["id"]: item["score"] for item in answer["items"]})
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
