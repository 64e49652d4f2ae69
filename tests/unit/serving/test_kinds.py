"""Each kind of recommendations, on an index of 30 products with known right answers.

``i00`` to ``i29`` (conftest): three types in rotation, ``i29`` the newest, ``i09`` without a date,
``i04`` and ``i11`` out of stock.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from newshelf.nn.blend import LINKS, Blend, popularity_growth
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import load_index
from newshelf.serving.recommender_predictor import RecommenderPredictor
from tests.fake_predictors import RecommendAnswer
from tests.served_model import VERSION

LINKED = {
    ("i00", "i03"): 0.5,
    ("i00", "i06"): 0.9,
    ("i00", "i01"): -0.3,
    ("i00", "i04"): 1.0,
    ("i07", "i03"): 0.6,
    ("i07", "i12"): 0.2,
}
"""``i04`` is out of stock. All others have no links; ``i02`` is a copy of ``i00``."""


@pytest.fixture(scope="module")
def index(bundle):
    plain = load_index(bundle / "index", encoder_version=VERSION)
    row_of = plain.table.row_of
    links, neighbours = np.zeros((30, 30)), np.roll(np.eye(30), 1, axis=1)
    for (given, goes), weight in LINKED.items():
        links[row_of[given], row_of[goes]] = weight
    neighbours[2] = np.eye(30)[0]
    blend = Blend(
        BlendSpec(weights={**dict.fromkeys(LINKS, 1.0), "siamese": 1.0, "content": 1.0}),
        sparse.csr_array(links.astype(np.float32)),
        sparse.csr_array(neighbours.astype(np.float32)),
        np.zeros(30, dtype=np.float32),
    )
    return replace(plain, blend=blend)


@pytest.fixture(scope="module")
def predictor(recommender, settings, index):
    return RecommenderPredictor(
        recommender.encoder,
        recommender.scorer,
        index,
        model_version=VERSION,
        limits=settings.limits,
        retrieve=30,
    )


@pytest.fixture
def ask(predictor, post):
    def send(kind: str, **fields):
        [(status, answer)] = post(predictor, {"kind": kind, "k": 5, **fields})
        assert status == 200, answer
        RecommendAnswer.model_validate(answer)
        return [(item["id"], item["source"]) for item in answer["items"]]

    return send


def numbers(answer) -> list[int]:
    return [int(item[1:]) for item, _ in answer]


def sources(answer) -> list[str]:
    return [source for _, source in answer]


def test_for_you_is_the_default(predictor, post):
    body = {"history": ["i01", "i08"], "k": 7}
    [plain, named] = post(predictor, body, {**body, "kind": "for_you"})
    assert plain[1]["items"] == named[1]["items"]


def test_similar_is_nearest_by_content(ask, index):
    answer = ask("similar", history=["i05"])
    cosines = index.embeddings @ index.embeddings[5]
    cosines[[4, 5, 11]] = -2
    assert numbers(answer) == np.argsort(-cosines)[:5].tolist()
    assert set(sources(answer)) == {"similar"}


@pytest.mark.parametrize(
    ("history", "linked"),
    # i02 has no links, and i00 for its neighbour.
    [(["i00"], [3, 6]), (["i00", "i07"], [3, 6, 12]), (["i02"], [3, 6])],
)
def test_bought_together_is_linked_in_the_models_order_and_then_content(ask, history, linked):
    answer = ask("bought_together", history=history)
    count = len(linked)
    assert sources(answer) == ["bought_together"] * count + ["similar"] * (5 - count)
    by_model = numbers(ask("for_you", history=history, k=30))
    assert numbers(answer)[:count] == [number for number in by_model if number in linked]


def test_an_inline_product_has_the_links_of_its_neighbours(ask):
    inline = {"id": "new", "title": "jade ring"}
    assert len(ask("bought_together", history=[inline])) == 5


def test_bought_together_keeps_to_filters_candidates_and_exclusions(ask):
    assert numbers(ask("bought_together", history=["i00"], exclude=["i06"]))[0] == 3
    named = ask("bought_together", history=["i00"], candidates=["i03", "i12"])
    assert named == [("i03", "bought_together"), ("i12", "similar")]
    stock = {"availability": "out_of_stock"}
    assert ask("bought_together", history=["i00"], filters=stock)[0] == ("i04", "bought_together")


def test_a_cart_gets_other_types_and_only_those(ask):
    # i00 and i03 are rings; i01 + 3n are shirts.
    answer = ask("cart", history=["i00", "i03"], k=30)
    assert {number % 3 for number in numbers(answer)} == {1, 2}
    assert sources(answer)[:5] == ["cart"] * 5
    answer = ask("cart", history=["i00", "i01"], k=30)
    assert {number % 3 for number in numbers(answer)} == {2}
    assert ask("cart", history=["i00", "i01", "i02"], k=30) == []


def test_a_cart_is_ranked_as_the_model_ranks(ask, predictor, post):
    history = ["i07"]
    others = [item for item, _ in ask("for_you", history=history, k=30) if int(item[1:]) % 3 != 1]
    assert [item for item, _ in ask("cart", history=history, k=5)] == others[:5]


def test_popular_is_the_same_for_everyone(ask, frame):
    in_stock = frame[frame["availability"] != "out_of_stock"]
    order = in_stock.sort_values("popularity", ascending=False)["id"].tolist()
    assert [item for item, _ in ask("popular")] == order[:5]
    expected = [item for item in order if item != "i17"][:5]
    assert [item for item, _ in ask("popular", history=["i17"])] == expected
    rings = ask("popular", filters={"product_type": "Jewellery"})
    assert {number % 3 for number in numbers(rings)} == {0}
    assert set(sources(rings)) == {"popular"}


def test_new_is_by_date_and_an_undated_product_is_not_new(ask):
    assert ask("new") == [(f"i{number}", "new") for number in (29, 28, 27, 26, 25)]
    everything = dict(ask("new", k=30))
    assert everything["i09"] == "popular"
    assert ask("new", candidates=["i03", "i09", "i08"], k=3) == [
        ("i08", "new"),
        ("i03", "new"),
        ("i09", "popular"),
    ]


def test_new_is_personal_with_a_history(ask, predictor, post):
    history = ["i01"]
    dated = [item for item, _ in ask("for_you", history=history, k=30) if item != "i09"]
    answer = ask("new", history=history, k=5)
    assert [item for item, _ in answer] == dated[:5]
    assert set(sources(answer)) == {"new"}


def test_buy_again_keeps_the_order_of_its_candidates_and_adds_nothing(ask):
    bought = ["i20", "i04", "i03", "unknown", "i25"]
    assert ask("buy_again", candidates=bought) == [
        ("i20", "buy_again"),
        ("i03", "buy_again"),
        ("i25", "buy_again"),
    ]
    assert ask("buy_again", history=["i03"]) == []


def test_trending_is_growth_and_then_popularity(ask, predictor, frame):
    popular = ask("popular")
    assert ask("trending") == popular
    live = predictor.live
    # The most popular product sells as usual, two others more than that, an unknown one anything.
    top = frame.loc[frame["popularity"].idxmax(), "id"]
    added = {top: 2.0, "i00": 9.0, "i13": 4.0, "i11": 30.0, "gone": 99.0}
    base = live.positions.blocks[0]
    now = replace(
        base.table,
        popularity=base.table.popularity + [added.get(item, 0.0) for item in base.table.id],
    )
    positions = replace(live.positions, blocks=(replace(base, table=now),))
    predictor.live = replace(live, positions=positions, added=added)
    try:
        answer = ask("trending")
        assert answer[:2] == [("i00", "trending"), ("i13", "trending")]
        assert set(sources(answer[2:])) == {"popular"}
    finally:
        predictor.live = live


def test_growth_is_relative_to_what_was_expected():
    recent, earlier = np.array([10.0, 10.0, 1.0]), np.array([999.0, 0.0, 0.0])
    growth = popularity_growth(recent, earlier, earlier_total=1000.0, items=100)
    assert growth[1] > growth[2] > 0 > growth[0]
    expected = 21 * 1000 / 1100
    assert growth[0] == pytest.approx((10 - expected) / np.sqrt(expected + 1))


def test_an_explanation_names_the_kind(predictor, post):
    bodies = [
        {"kind": "bought_together", "history": ["i00"]},
        {"kind": "new"},
        {"kind": "buy_again", "candidates": ["i01"]},
        {"kind": "cart", "history": ["i00"]},
        {"kind": "popular"},
    ]
    answers = post(predictor, *({**body, "k": 1, "explain": True} for body in bodies))
    reasons = [answer["items"][0]["reason"] for _, answer in answers]
    assert reasons[:3] == ["often bought together", "new in the shop", "you bought it before"]
    assert reasons[3] == "goes with your cart"
    assert reasons[4] == "popular with other shoppers"


def test_kinds_of_one_batch_do_not_disturb_each_other(predictor, post):
    bodies = [
        {"kind": kind, "history": ["i00", "i05"], "candidates": None, "k": 4}
        for kind in ("popular", "for_you", "new", "similar", "cart", "trending", "for_you")
    ]
    for body in bodies:
        del body["candidates"]
    together = [answer["items"] for _, answer in post(predictor, *bodies)]
    alone = [answer["items"] for body in bodies for _, answer in post(predictor, body)]
    assert together == alone


def test_an_unknown_kind_is_named_with_the_known_ones(predictor, post):
    [(status, answer)] = post(predictor, {"kind": "best"})
    assert (status, answer["field"]) == (422, "kind")
    assert "'bought_together'" in answer["message"]


def test_without_a_scorer_and_links_content_and_dates_rank(bundle, recommender, settings, post):
    plain = load_index(bundle / "index", encoder_version=VERSION)
    index = replace(
        plain, manifest=plain.manifest.model_copy(update={"vector": None}), vectors=None
    )
    served = RecommenderPredictor(
        recommender.encoder,
        None,
        index,
        model_version=VERSION,
        limits=settings.limits,
        retrieve=30,
    )
    answers = post(
        served,
        {"kind": "cart", "history": ["i00"], "k": 2},
        {"kind": "bought_together", "history": ["i00"], "k": 2},
        {"kind": "new", "history": ["i00"], "k": 2},
    )
    found = [[item["source"] for item in answer["items"]] for _, answer in answers]
    assert found == [["cart", "cart"], ["similar", "similar"], ["new", "new"]]
