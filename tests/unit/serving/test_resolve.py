"""What may be answered, and what a history is, beside a loop over every reference."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newshelf.config import Limits
from newshelf.errors import UnknownItem
from newshelf.serving.index import load_index
from newshelf.serving.item_table import allowed_mask
from newshelf.serving.live import LiveIndex
from newshelf.serving.protocol import RawRequest
from newshelf.serving.ranking import _best
from newshelf.serving.requests import parse_recommend
from newshelf.serving.resolve import Encoded, resolve
from newshelf.serving.schemas import Ids, seen_as_ids

QUICK = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ids = st.integers(0, 33).map(lambda number: f"i{number:02}")  # i30 … i33 are unknown
products = ids.map(lambda item: {"id": item, "title": "a ring", "material": "jade"})
refs = st.lists(ids, max_size=8) | st.lists(ids | products, max_size=8)
filters = st.fixed_dictionaries(
    {},
    optional={
        "material": st.sampled_from(["jade", "gold"]),
        "availability": st.sampled_from(["in_stock", "out_of_stock"]),
    },
)


@pytest.fixture(scope="module")
def index(bundle):
    return load_index(bundle / "index", encoder_version="0123456789ab")


def asked_of(**body):
    return parse_recommend(RawRequest({"body": json.dumps(body).encode()}, ""), Limits())


def encoded_of(asked) -> dict[str, Encoded]:
    """Vectors that tell the products apart."""
    return {
        item.at: Encoded(np.full(512, at, np.float32), np.full(16, -at, np.float32))
        for at, item in enumerate(asked.inline, start=1)
    }


def id_of(ref) -> str:
    return ref if isinstance(ref, str) else ref["id"]


@QUICK
@given(refs, st.none() | refs.filter(len), st.lists(ids, max_size=4), filters)
def test_what_may_be_answered(index, history, candidates, exclude, given_filters):
    body = {"history": history, "exclude": exclude, "filters": given_filters}
    asked = asked_of(**body, **({"candidates": candidates} if candidates else {}))
    first = {}
    for ref in index.table.id if candidates is None else candidates:
        first.setdefault(id_of(ref), ref)
    hidden = {*exclude, *map(id_of, history)}
    named = {item for item, ref in first.items() if isinstance(ref, dict) or item < "i30"}
    if not named:
        with pytest.raises(UnknownItem):
            resolve(asked, encoded_of(asked), LiveIndex.of(index), 4)
        return
    candidate_set = resolve(asked, encoded_of(asked), LiveIndex.of(index), 4).candidate_set
    passed = allowed_mask(index.table, asked.request.filters)
    expected = []
    for item in named - hidden:
        if isinstance(first[item], dict):
            fits = given_filters.get("material") in (None, "jade")
            fits &= given_filters.get("availability") in (None, "in_stock")
        else:
            fits = passed[index.table.row_of[item]]
        if fits:
            expected.append(item)
    positions = np.flatnonzero(candidate_set.allowed)
    assert sorted(candidate_set.id(position) for position in positions) == sorted(expected)
    assert (candidate_set.named is not None) == (candidates is not None)
    if candidate_set.named is not None:
        assert candidate_set.named.tolist() == positions.tolist()


@QUICK
@given(refs)
def test_a_history(index, history):
    asked = asked_of(history=history)
    encoded = encoded_of(asked)
    found = resolve(asked, encoded, LiveIndex.of(index), 4).history
    recent, rows, unseen = [], set(), []
    inline = iter(asked.inline)
    for ref in history:
        row = index.table.row_of.get(id_of(ref))
        if row is not None:
            rows.add(row)
        if isinstance(ref, dict):
            product = encoded[next(inline).at]
            recent.append((product.embedding, product.vector))
            if row is None:
                unseen.append(product.embedding)
        elif row is not None:
            recent.append((index.embeddings[row], index.vectors[row]))
    assert found.rows.tolist() == sorted(rows)
    assert found.unseen.tolist() == np.array(unseen).reshape(-1, 512).tolist()
    assert len(found) == len(recent[-4:]) == len(found.facts)
    for at, (embedding, vector) in enumerate(recent[-4:]):
        assert found.embeddings[at].tolist() == embedding.tolist()
        assert found.vectors[at].tolist() == vector.tolist()


@pytest.mark.parametrize(
    ("refs", "passed"),
    [(["a"], True), (["a", ""], False), ([], False), (["a", {}], False), ("a", False)],
)
def test_a_list_of_ids_is_known_as_such(refs, passed):
    found = seen_as_ids(refs)
    assert isinstance(found, Ids) is passed
    assert found == refs


@QUICK
@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 12), st.randoms())
def test_the_best_are_those_of_a_sort(values, count, random):
    """Scores that are equal often, at positions in any order."""
    positions = list(range(len(values)))
    random.shuffle(positions)
    best = _best(np.array(values, dtype=np.float64), np.array(positions, dtype=np.int64), count)
    expected = sorted(range(len(values)), key=lambda at: (-values[at], positions[at]))
    assert best.tolist() == expected[:count]
