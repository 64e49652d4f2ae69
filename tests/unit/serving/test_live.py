"""Rankings over base and delta are those over the index that both are folded into."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.serving.index import ItemIndex
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable
from newshelf.serving.live import LiveIndex, segment_table
from newshelf.serving.segments import (
    Current,
    write_popularity,
)
from newshelf.serving.shelf_reader import open_live
from newshelf.shelf.model import fold
from tests.unit.serving.live_catalog import (
    IDS,
    TYPES,
    Change,
    answers,
    archive_of,
    predictor_over,
    publish,
    segment_of,
)

ids = st.sampled_from(IDS)
changes = st.builds(
    Change,
    item=ids,
    removed=st.sampled_from([False, False, False, True]),
    encoded=st.booleans(),
    price=st.none() | st.sampled_from([0.0, 2.0, 5.5, 8.0]),
    stock=st.sampled_from([None, "in_stock", "out_of_stock", "preorder"]),
    kind=st.integers(0, 3),
    style=st.none() | st.sampled_from(["minimal", "boho"]),
    popularity=st.sampled_from([0.0, 1.0, 2.5]),
)
products = st.builds(
    lambda item, title, kind: {"id": item, "title": title, "product_type": TYPES[kind]},
    st.sampled_from([*IDS[::5], "inline"]),
    st.sampled_from(["jade ring", "linen shirt"]),
    st.integers(0, 2),
)
refs = st.lists(ids | products, max_size=6)
requests = st.fixed_dictionaries(
    {"history": refs, "k": st.integers(1, 12)},
    optional={
        "candidates": st.lists(ids | products, min_size=1, max_size=12),
        "exclude": st.lists(ids, max_size=4),
        "diversity": st.sampled_from([0.0, 0.3]),
        "explain": st.booleans(),
        "filters": st.fixed_dictionaries(
            {},
            optional={
                "product_type": st.sampled_from(["Jewellery", "Clothing > Shirts"]),
                "brand": st.sampled_from(["aurora", "Fjord"]),
                "style": st.sampled_from(["minimal", "boho"]),
                "price": st.just({"min": 1, "max": 6}),
                "availability": st.sampled_from(["in_stock", "out_of_stock", "preorder"]),
            },
        ),
    },
)
cuts = st.lists(st.lists(changes, min_size=1, max_size=5), min_size=1, max_size=5)


def numbered(cuts: Sequence[Sequence[Change]]) -> list[list[Change]]:
    """Every change with an embedding of its own."""
    count = iter(range(10_000))
    return [[replace(change, seed=next(count)) for change in cut] for cut in cuts]


def expected_ids(archive: ItemIndex, cuts: Sequence[Sequence[Change]]) -> list[str]:
    """What is on the shelf, in order, as a loop over the changes finds it."""
    order = dict.fromkeys(archive.table.id)
    for change in (change for cut in cuts for change in cut):
        order.pop(change.item, None)
        if not change.removed:
            order[change.item] = None
    return list(order)


@settings(max_examples=40, derandomize=True)
@given(
    mode=st.sampled_from(["pairs", "formula", "bound", "no links"]),
    items=st.integers(2, 30),
    seed=st.integers(0, 5),
    cuts=cuts,
    folded_at=st.integers(0, 5),
    popularity=st.dictionaries(ids, st.sampled_from([0.5, 1.0, 3.0]), max_size=5),
    bodies=st.lists(requests, min_size=4, max_size=8),
)
def test_a_delta_ranks_as_the_index_it_is_folded_into(
    mode, items, seed, cuts, folded_at, popularity, bodies
):
    archive, cuts = archive_of(items, mode, seed), numbered(cuts)
    with TemporaryDirectory() as name:
        folder = Path(name)
        old = LiveIndex.of(archive)
        start = Current(seq=0, popularity=write_popularity(folder, popularity))
        current = publish(folder, archive, cuts, start)
        live = open_live(folder, current, old)
        ordered = expected_ids(archive, cuts)
        places = [live.positions.at(position) for position in np.flatnonzero(live.alive)]
        assert [table.id[row] for table, row in places] == ordered
        wanted = answers(predictor_over(archive, live, mode), bodies)
        # From the first segments, then further ones, as a worker does that runs through it.
        read = open_live(folder, publish(folder, archive, cuts[:2], start), old)
        read = open_live(folder, current, read)
        assert answers(predictor_over(archive, read, mode), bodies) == wanted
        # One part of the segments is folded, then the rest.
        part = publish(folder, archive, cuts[:folded_at], start)
        fold(folder, part, f"base-{part.seq}", old)
        rest = Current(seq=part.seq, base=f"base-{part.seq}", popularity=start.popularity)
        rest = publish(folder, archive, cuts[folded_at:], rest)
        over_part = open_live(folder, rest, old)
        assert answers(predictor_over(archive, over_part, mode), bodies) == wanted
        fold(folder, rest, "base-1000", old)
        whole = rest.model_copy(update={"base": "base-1000", "segments": ()})
        folded = open_live(folder, whole, read)
        assert list(folded.base.table.id) == ordered
        assert answers(predictor_over(archive, folded, mode), bodies) == wanted


@settings(max_examples=10, derandomize=True)
@given(cuts=cuts, bodies=st.lists(requests, min_size=4, max_size=6))
def test_precomputed_terms_give_what_the_formula_gives(cuts, bodies):
    """Also for products that were encoded again, which have no such terms."""
    archive = archive_of(20, "pairs", 1)
    with TemporaryDirectory() as name:
        current = publish(Path(name), archive, numbered(cuts), Current(seq=0))
        live = open_live(Path(name), current, LiveIndex.of(archive))
        found = [
            answers(predictor_over(archive, live, mode), [{**body, "k": 40} for body in bodies])
            for mode in ("pairs", "bound", "formula")
        ]
    for given_answers in found[:2]:
        for one, other in zip(given_answers, found[2], strict=True):
            scores = [
                {item["id"]: item["score"] for item in answer.get("items", [])}
                for answer in (one, other)
            ]
            assert scores[0] == pytest.approx(scores[1], abs=2e-4)


def test_a_new_product_has_the_links_of_its_neighbours(tmp_path):
    """The copy of a product, under another id, ranks like it."""
    archive = archive_of(20, "formula", 2)
    cut = [Change("i30", kind=1, seed=7), Change("i31", kind=1, seed=7)]
    current = publish(tmp_path, archive, [cut], Current(seq=0))
    predictor = predictor_over(
        archive, open_live(tmp_path, current, LiveIndex.of(archive)), "formula"
    )
    inline = {"id": "inline", "title": "jade ring"}
    bodies = [
        {"history": ["i03"], "candidates": ["i30", "i31", "i05"]},
        {"history": ["i30"], "candidates": ["i05", "i06"]},
        {"history": ["i31"], "candidates": ["i05", "i06"]},
        {"history": ["i30", inline], "candidates": ["i31", inline]},
    ]
    ranked, one, other, mixed = answers(predictor, bodies)
    scores = {item["id"]: item["score"] for item in ranked["items"]}
    assert scores["i30"] == scores["i31"]
    assert one["items"] == other["items"]
    assert [item["id"] for item in mixed["items"]] == ["i31"]


def test_what_is_gone_is_unknown_everywhere(tmp_path):
    archive = archive_of(10, "pairs", 3)
    cuts = [[Change("i02"), Change("i30")], [Change("i02", removed=True)], [Change("i30")]]
    current = publish(tmp_path, archive, [*cuts, [Change("i30", removed=True)]], Current(seq=0))
    predictor = predictor_over(archive, open_live(tmp_path, current, LiveIndex.of(archive)), "x")
    [history, named, only, whole] = answers(
        predictor,
        [
            {"history": ["i02", "i30", "i03"], "k": 3},
            {"history": ["i03"], "candidates": ["i02", "i30", "i04"]},
            {"history": ["i03"], "candidates": ["i02", "i30"]},
            {"history": [], "k": 40},
        ],
    )
    assert history["ignored"] == named["ignored"] == ["i02", "i30"]
    assert [item["id"] for item in named["items"]] == ["i04"]
    assert only["status"] == 404
    assert {item["id"] for item in whole["items"]} == {*IDS[:10]} - {"i02"}


def test_further_columns_keep_the_types_of_the_base(tmp_path):
    archive = archive_of(4, "pairs", 0)
    table = ItemTable.from_columns(
        {
            **{name: [None] * 4 for name in INDEX_COLUMNS},
            "id": IDS[:4],
            "price": [1.0] * 4,
            "popularity": [0.0] * 4,
            "pack": [1, 2, None, 4],
            "code": ["a", "b", None, "7"],
        }
    )
    changed = replace(
        segment_of(archive, [Change("i00"), Change("i30")]),
        extras=[{"pack": "many", "code": 12}, {"pack": "3", "fresh": "yes"}],
    )
    found = segment_table(changed, table, {}).extras
    assert found["pack"].tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)
    assert list(found["code"]) == ["12", None]
    assert list(found["fresh"]) == [None, "yes"]
