from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from newshelf.attributes.lexicon import packaged_lexicon
from newshelf.errors import VersionMismatch
from newshelf.nn.numpy_scorer import Pooling
from newshelf.serving.index import load_index
from newshelf.serving.item_table import KnownValues, TextReader
from newshelf.serving.recommender_predictor import RecommenderPredictor, load_recommender_predictor
from newshelf.serving.runtimes.base import Device, open_runtime, scorer_graph

HIDDEN = {"i04", "i11"}
JADE = {"id": "new", "title": "green jade ring", "material": "jade", "color": "green"}


def ids(answer) -> list[str]:
    return [item["id"] for item in answer["items"]]


def sources(answer) -> set[str]:
    return {item["source"] for item in answer["items"]}


@pytest.fixture(scope="module")
def index(bundle):
    return load_index(bundle / "index", encoder_version="0123456789ab")


@pytest.fixture(scope="module")
def without_scorer(recommender, index, settings):
    plain = replace(index, vectors=None, vector_search=None)
    return RecommenderPredictor(
        recommender.encoder,
        None,
        plain,
        model_version="0123456789ab",
        limits=settings.limits,
        retrieve=settings.retrieve,
    )


def test_the_answer_has_the_contracts_fields(recommender, post):
    [(status, answer)] = post(recommender, {"history": ["i00"], "k": 4})
    assert status == 200
    assert set(answer) == {"items", "model_version", "index_version", "request_id"}
    assert answer["model_version"] == "0123456789ab"
    assert len(answer["index_version"]) == 12
    assert answer["request_id"] == "request-0"
    assert [set(item) for item in answer["items"]] == [{"id", "score", "source"}] * 4
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert sources(answer) == {"model"}


@pytest.mark.parametrize(
    "history", [["i00"], ["i03", "i20", "i08"], [f"i{n:02}" for n in range(9)]]
)
def test_ranking_is_what_a_naive_loop_finds(recommender, index, bundle, post, history):
    """Retrieve by the mean of the last four, score each candidate alone, sort."""
    [(_, answer)] = post(recommender, {"history": history, "k": 10})
    rows = [index.table.row_of[item] for item in history][-4:]
    mean = index.vectors[rows].mean(axis=0)
    allowed = [row for row, item in enumerate(index.table.id) if item not in {*history, *HIDDEN}]
    nearest = sorted(allowed, key=lambda row: -float(index.vectors[row] @ mean))[:12]
    scorer = open_runtime("torchscript", bundle, scorer_graph(), Device(), 1)
    scores = {}
    for row in nearest:
        outputs = scorer.run(
            {
                "history": index.vectors[rows][None],
                "history_mask": np.ones((1, len(rows)), dtype=bool),
                "candidates": index.vectors[[row]][None],
            }
        )
        scores[index.table.id[row]] = outputs["scores"].item()
    wanted = sorted(scores, key=lambda item: -scores[item])[:10]
    assert ids(answer) == wanted
    for item in answer["items"]:
        assert item["score"] == pytest.approx(scores[item["id"]], abs=2e-4)


def test_rows_of_a_batch_do_not_touch_each_other(recommender, post):
    bodies = [
        {"history": ["i00"], "k": 3},
        {"history": [f"i{n:02}" for n in range(5, 12)], "k": 20, "diversity": 0.4},
        {"history": []},
        {"k": 0},
        {"history": [JADE, "i02"], "candidates": ["i05", "i06", "i00"]},
        {"history": [JADE], "filters": {"product_type": "Jewellery"}, "explain": True},
    ]
    together = post(recommender, *bodies)
    for body, (status, answer) in zip(bodies, together, strict=True):
        [(status_alone, alone)] = post(recommender, body)
        assert status == status_alone
        assert {**answer, "request_id": ""} == {
            **alone,
            "request_id": "",
        } or status != 200
    assert [status for status, _ in together] == [200, 200, 200, 422, 200, 200]


def test_history_and_exclusions_never_appear(recommender, post):
    history = [f"i{n:02}" for n in range(0, 20, 2)]
    body = {"history": history, "exclude": ["i01", "i03", "unheard-of"], "k": 30}
    [(_, answer)] = post(recommender, body)
    shown = set(ids(answer))
    assert not shown & {*history, "i01", "i03", *HIDDEN}
    assert len(shown) == len(ids(answer)) == 30 - 10 - 2 - 1


def test_unknown_ids_are_ignored_and_listed(recommender, post):
    bodies = [
        {"history": ["gone", "i00", "gone"], "k": 3},
        {"history": ["i00"], "k": 3},
        {"history": ["i00"], "candidates": ["lost", "i05", "i06"]},
        {"history": ["gone"], "k": 3},
    ]
    answers = [answer for _, answer in post(recommender, *bodies)]
    assert answers[0]["ignored"] == ["gone"]
    assert answers[0]["items"] == answers[1]["items"]
    assert "ignored" not in answers[1]
    assert answers[2]["ignored"] == ["lost"]
    assert set(ids(answers[2])) == {"i05", "i06"}
    assert sources(answers[3]) == {"popular"}


def test_without_history_the_popular_come_first(recommender, post, frame):
    [(_, answer)] = post(recommender, {"k": 5})
    shown = frame[~frame["id"].isin(HIDDEN)].sort_values("popularity", ascending=False)
    assert ids(answer) == shown["id"][:5].tolist()
    assert sources(answer) == {"popular"}
    total = frame["popularity"].sum()
    assert answer["items"][0]["score"] == pytest.approx(shown["popularity"].iloc[0] / total)


def test_without_history_a_category_has_its_own_favourites(recommender, post, frame):
    body = {"k": 4, "filters": {"product_type": "clothing"}, "explain": True}
    [(_, answer)] = post(recommender, body)
    shirts = frame[frame["product_type"].eq("Clothing > Shirts") & ~frame["id"].isin(HIDDEN)]
    wanted = shirts.sort_values("popularity", ascending=False)["id"][:4].tolist()
    assert ids(answer) == wanted
    assert sources(answer) == {"popular_in_category"}
    assert answer["items"][0]["reason"] == "popular in clothing"


def test_without_history_candidates_are_ranked_by_popularity(recommender, post):
    [(_, answer)] = post(recommender, {"candidates": ["i01", "i02", "i03", JADE], "k": 4})
    assert ids(answer) == ["i03", "i02", "i01", "new"]
    assert answer["items"][-1]["score"] == 0


def test_without_a_scorer_likeness_ranks(without_scorer, index, post):
    [(_, answer)] = post(without_scorer, {"history": ["i00", "i08"], "k": 5, "explain": True})
    mean = index.embeddings[[0, 8]].mean(axis=0)
    cosine = index.embeddings @ (mean / np.linalg.norm(mean))
    order = [
        index.table.id[row]
        for row in np.argsort(-cosine)
        if index.table.id[row] not in {"i00", "i08", *HIDDEN}
    ]
    assert ids(answer) == order[:5]
    assert sources(answer) == {"similar"}
    assert answer["items"][0]["score"] == pytest.approx(
        cosine[index.table.row_of[order[0]]], abs=1e-4
    )
    assert answer["items"][0]["reason"].startswith("like ‘")


def test_without_a_scorer_inline_products_work_too(without_scorer, post):
    body = {"history": [{"title": "jade ring"}], "candidates": [JADE, "i01"]}
    [(status, answer)] = post(without_scorer, body)
    assert status == 200
    assert set(ids(answer)) == {"new", "i01"}


def test_an_unseen_product_can_be_candidate(recommender, post, picture, b64):
    shown = {**JADE, "image": b64(picture())}
    body = {"history": ["i00", "i06"], "candidates": ["i05", shown, "i09"], "explain": True}
    [(status, answer)] = post(recommender, body)
    assert status == 200
    assert set(ids(answer)) == {"new", "i05", "i09"}
    assert sources(answer) == {"model"}


def test_an_unseen_product_can_be_history(recommender, post):
    bodies = [
        {"history": [JADE], "k": 5},
        {"history": [{**JADE, "title": "red linen shirt"}], "k": 5},
    ]
    answers = [answer for _, answer in post(recommender, *bodies)]
    assert sources(answers[0]) == {"model"}
    scores = [[item["score"] for item in answer["items"]] for answer in answers]
    assert scores[0] != scores[1]


def test_an_inline_product_wins_over_the_index_and_is_not_repeated(recommender, post):
    inline = {**JADE, "id": "i05"}
    body = {"history": ["i00"], "candidates": [inline, "i05", "i06", "i06"]}
    [(_, answer)] = post(recommender, body)
    assert sorted(ids(answer)) == ["i05", "i06"]
    [(_, excluded)] = post(recommender, {**body, "exclude": ["i05"]})
    assert ids(excluded) == ["i06"]
    [(_, owned)] = post(recommender, {"history": [inline], "k": 30})
    assert "i05" not in ids(owned)


def test_filters_apply_to_all_candidates(recommender, post):
    body = {
        "history": ["i00"],
        "candidates": ["i04", "i05", JADE, {**JADE, "id": "linen", "material": "linen"}],
        "filters": {"material": "jade"},
    }
    [(_, answer)] = post(recommender, body)
    assert set(ids(answer)) == {"i05", "new"}
    body["filters"]["availability"] = "out_of_stock"
    [(_, answer)] = post(recommender, body)
    assert ids(answer) == ["i04"]


def test_filters_that_leave_nothing_answer_an_empty_list(recommender, post):
    [(status, answer)] = post(recommender, {"history": ["i00"], "filters": {"brand": "nobody"}})
    assert (status, answer["items"]) == (200, [])


def test_diversity_spreads_the_answer(recommender, index, post):
    def similarity(answer) -> float:
        rows = [index.table.row_of[item] for item in ids(answer)]
        cosines = index.embeddings[rows] @ index.embeddings[rows].T
        return float(cosines[np.triu_indices(len(rows), 1)].mean())

    bodies = [{"history": ["i00"], "k": 5, "diversity": value} for value in (0, 1)]
    plain, spread = (answer for _, answer in post(recommender, *bodies))
    assert ids(plain)[0] == ids(spread)[0]
    assert similarity(spread) < similarity(plain)


def test_a_reason_names_the_item_that_counted_and_what_is_shared(recommender, post, frame):
    body = {"history": ["i00", "i01"], "k": 20, "explain": True}
    [(_, answer)] = post(recommender, body)
    titles = frame.set_index("id")["title"]
    for item in answer["items"]:
        starts = [f"like ‘{titles[liked]}’ in your history" for liked in ("i00", "i01")]
        assert item["reason"].startswith(tuple(starts))
    reasons = " ".join(item["reason"] for item in answer["items"])
    assert "same material jade" in reasons
    assert "same type Rings" in reasons


def test_scores_that_are_not_finite_fall_back_to_likeness(recommender, pooling, post, monkeypatch):
    class Broken(Pooling):
        def scores(self, similarity):
            scores = super().scores(similarity)
            scores[::2] = float("nan")
            return scores

    broken = replace(recommender._ranker, pooling=Broken(**pooling.model_dump()))
    monkeypatch.setattr(recommender, "_ranker", broken)
    [(status, answer)] = post(recommender, {"history": ["i00"], "k": 10})
    assert status == 200
    assert [item["source"] for item in answer["items"]] == ["model"] * 6 + ["similar"] * 4
    assert len(set(ids(answer))) == 10


def test_an_index_of_another_encoder_is_refused(recommender, index, settings):
    with pytest.raises(VersionMismatch):
        RecommenderPredictor(
            recommender.encoder,
            recommender.scorer,
            index,
            model_version="another00000",
            limits=settings.limits,
            retrieve=10,
        )


def test_an_index_without_vectors_does_not_fit_a_scorer(recommender, index, settings):
    plain = replace(index, vectors=None, vector_search=None)
    with pytest.raises(VersionMismatch, match="go together"):
        RecommenderPredictor(
            recommender.encoder,
            recommender.scorer,
            plain,
            model_version="0123456789ab",
            limits=settings.limits,
            retrieve=10,
        )


def test_loading_checks_the_index_too(bundle, settings, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in bundle.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "version.json").unlink()
    (folder / "version.json").write_text('{"model_version": "other0000000"}')
    with pytest.raises(VersionMismatch, match="made by encoder 0123456789ab"):
        load_recommender_predictor(folder, settings=settings)


def test_popularity_is_stable_among_equals(index):
    table = type(index.table).from_columns(
        {
            **{name: [None] * 3 for name in ("title", "product_type", "brand", "color")},
            **{name: [None] * 3 for name in ("material", "availability", "price", "created_at")},
            "id": ["a", "b", "c"],
            "popularity": pd.Series([1.0, 2.0, 2.0]).tolist(),
        }
    )
    assert table.popular_first.tolist() == [1, 2, 0]


def test_markup_is_neither_a_filters_hit_nor_a_reason(recommender, index, post):
    reader = TextReader(packaged_lexicon(), 0.6)
    known = replace(index.table, known=KnownValues(reader=reader))
    predictor = recommender.over(replace(index, table=known))
    walnut = {
        "id": "walnut",
        "title": "a table of gold",
        "description": '<p style="color:red">the table</p>',
    }
    red = {"id": "red", "title": "a lamp", "description": "<p>Red, of gold</p>"}
    body = {
        "history": [{"title": "red lamp"}],
        "candidates": [walnut, red],
        "filters": {"color": "red"},
        "explain": True,
    }
    [(_, filtered), (_, ranked)] = post(predictor, body, {**body, "filters": {}})
    assert ids(filtered) == ["red"]
    reasons = {item["id"]: item["reason"] for item in ranked["items"]}
    assert "red" in reasons["red"].partition(":")[2]
    assert "red" not in reasons["walnut"].partition(":")[2]
