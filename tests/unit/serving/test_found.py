"""Searches of a worker: over the sample shop's products, with invented embeddings."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from newshelf.attributes.build import catalog_texts, learn_lexicon
from newshelf.attributes.lexicon import implied, statements
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.report import CatalogReport
from newshelf.sample.products import item_frame, plan_products
from newshelf.serving.index import IndexKnowledge, load_index
from newshelf.serving.index_write import write_index
from newshelf.serving.kinds import fuse

VERSION = "0123456789ab"
PRODUCTS = 1300


@pytest.fixture(scope="module")
def shop() -> pd.DataFrame:
    blueprints = plan_products(PRODUCTS, seed=7)
    frame = item_frame(blueprints, ["silver"] * PRODUCTS, seed=7)
    return frame.assign(popularity=[float(row % 17) for row in range(PRODUCTS)])


@pytest.fixture(scope="module")
def recommender(recommender, shop, scorer, pooling, unit_rows, tmp_path_factory):
    """Of the sample shop, with the facts that its texts and columns state."""
    folder = tmp_path_factory.mktemp("sample") / "index"
    catalog = Catalog(folder, "sample", shop, None, None, CatalogReport())
    texts = catalog_texts(catalog)
    lexicon = learn_lexicon(texts)
    facts = [
        (row, fact.attribute, fact.value, fact.confidence)
        for row, text in enumerate(texts)
        for stated in statements("", text, lexicon)
        for fact in (stated, *implied(stated, lexicon))
    ]
    embeddings = unit_rows(PRODUCTS, 512)
    write_index(
        folder,
        encoder_version=VERSION,
        items=shop,
        embeddings=embeddings,
        vectors=scorer.project(torch.from_numpy(embeddings)).detach().numpy(),
        knowledge=IndexKnowledge(facts, lexicon),
        pooling=pooling,
    )
    return recommender.over(load_index(folder, encoder_version=VERSION))


def found(post, recommender, body, **fields):
    [(status, answer)] = post(recommender, {"k": 20, **fields, "search": body})
    assert status == 200, answer
    return [item["id"] for item in answer["items"]], answer


def rows_of(shop, ids) -> pd.DataFrame:
    return shop.set_index("id").loc[ids]


@pytest.mark.parametrize(
    ("sentence", "kind", "price"),
    [
        ("blue ring under 150", "Jewellery > Rings", 150),
        ("Rings in blue, at most $300", "Jewellery > Rings", 300),
        ("blue shirts below 60", "Clothing > Shirts", 60),
    ],
)
def test_a_sentence_answers_with_what_it_states(recommender, shop, post, sentence, kind, price):
    ids, answer = found(post, recommender, {"text": sentence})
    assert answer["understood"] == {
        "filters": {"color": ["blue"], "price": {"max": price}, "product_type": [kind]}
    }
    assert ids
    products = rows_of(shop, ids)
    assert set(products["product_type"]) == {kind}
    assert (products["price"] <= price).all()
    blue = {"blue", "navy", "turquoise", "teal", "indigo", "cobalt", "sapphire"}
    texts = products["color"].fillna("") + products["title"] + products["description"]
    assert all(any(word in text.lower() for word in blue) for text in texts)
    assert {item["source"] for item in answer["items"]} == {"search"}


def test_what_nothing_passes_is_dropped_in_order(recommender, shop, post):
    ids, answer = found(post, recommender, {"text": "gothic leather ring under 100000"})
    assert answer["understood"]["relaxed"][0] in {"style", "material"}
    assert set(rows_of(shop, ids)["product_type"]) == {"Jewellery > Rings"}


def test_a_given_filter_is_never_dropped(recommender, post):
    nothing = {"price": {"max": 0.01}}
    assert found(post, recommender, {"text": "blue ring"}, filters=nothing)[0] == []


def test_word_hits_come_first_where_the_embedding_is_blind(recommender, shop, post):
    hits = shop["id"].sample(5, random_state=1).tolist()
    stock = {"availability": ["in_stock", "out_of_stock"]}
    ids, _ = found(
        post, recommender, {"text": "xyz", "hits": [*hits, "unknown"]}, filters=stock, k=10
    )
    assert set(hits) <= set(ids)
    assert ids[0] in hits


def test_excluded_products_are_left_out_and_seen_ones_are_not(recommender, post):
    ids, _ = found(post, recommender, {"text": "ring"})
    body = {"text": "ring"}
    again, _ = found(post, recommender, body, exclude=ids[:2], history=[ids[2]])
    assert not set(ids[:2]) & set(again)
    assert ids[2] in again


def test_the_history_reranks_what_is_found(recommender, post):
    plain, _ = found(post, recommender, {"text": "ring"}, k=100)
    mine, _ = found(post, recommender, {"text": "ring"}, k=100, history=plain[-3:])
    assert sorted(plain) == sorted(mine)
    assert plain != mine


def test_a_picture_alone_is_searched_for(recommender, post, picture, b64):
    ids, answer = found(post, recommender, {"image": b64(picture())}, k=5)
    assert len(ids) == 5
    assert answer["understood"] == {"filters": {}}


def test_a_price_alone_finds_popular_products(recommender, shop, post):
    ids, _ = found(post, recommender, {"text": "under 60"}, k=5)
    products = rows_of(shop, ids)
    assert (products["price"] <= 60).all()
    assert products["popularity"].is_monotonic_decreasing


def test_words_that_the_tower_cannot_read_still_find(recommender, shop, post):
    hit = shop["id"][shop["availability"] == "in_stock"].iloc[3]
    assert found(post, recommender, {"text": "风铃", "hits": [hit]})[0] == [hit]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"image": "no base64"}, "image"),
        ({"image": "aGVsbG8="}, "image"),
        ({"text": 3}, "search.text"),
        ({"words": "ring"}, "search.words"),
        ({"text": "x" * 20_000}, "title"),
    ],
)
def test_a_bad_query_is_refused(recommender, post, body, field):
    [(status, answer)] = post(recommender, {"search": body})
    assert 400 <= status < 500
    assert answer["field"] == field


def test_a_bad_query_leaves_its_neighbours_alone(recommender, post):
    good = {"search": {"text": "ring"}}
    statuses = [
        status for status, _ in post(recommender, good, {"search": {"image": "!"}}, good, {"k": 2})
    ]
    assert statuses == [200, 422, 200, 200]


def test_the_first_of_all_rankings_scores_one():
    first = np.array([3, 1]), np.array([3, 2])
    positions, scores = fuse([(1.0, first[0]), (2.0, first[1])])
    assert positions.tolist() == [1, 2, 3]
    assert scores[2] == pytest.approx(1)
    assert scores[1] > scores[0], "the second ranking weighs more"


def test_nothing_is_fused_to_nothing():
    positions, scores = fuse([])
    assert len(positions) == len(scores) == 0


_Ranking = st.lists(st.integers(0, 30), unique=True).map(lambda own: np.array(own, dtype=np.int64))


@given(st.lists(st.tuples(st.floats(0.1, 3), _Ranking), max_size=3))
def test_a_product_that_is_ahead_everywhere_is_ahead(rankings):
    positions, scores = fuse(rankings)
    lists = [ranked.tolist() for _, ranked in rankings]
    for (one, high), (other, low) in permutations(zip(positions.tolist(), scores, strict=True), 2):
        if all(_ahead(one, other, ranked) for ranked in lists):
            assert high > low
    assert all(0 < score <= 1 + 1e-9 for score in scores)


def _ahead(one: int, other: int, ranked: list[int]) -> bool:
    return one in ranked and (other not in ranked or ranked.index(one) < ranked.index(other))
