import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.serving.search import base, exact
from newshelf.serving.search.ann import AnnSearch, Lists
from newshelf.serving.search.base import PlainSearch, open_search, top_rows
from newshelf.serving.search.build import build_search
from newshelf.serving.search.exact import Int8Search, code_rows


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def clustered(count, width, seed=0, kinds=40):
    """Products of some kinds."""
    return unit(kinds_and_rows(count, width, seed, kinds)[1])


def kinds_and_rows(count, width, seed, kinds):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((kinds, width))
    kind = rng.integers(kinds, size=count)
    return kind, centres[kind] + 0.8 * rng.standard_normal((count, width))


def naive(matrix, query, allowed, limit):
    """Scores of the best allowed rows, the best first."""
    rows = np.flatnonzero(allowed)
    return np.sort(matrix[rows] @ query)[::-1][:limit]


def assert_nearest(found, matrix, query, allowed, limit):
    """Rows in order, without repetition, allowed, and with the best scores."""
    assert np.all(np.diff(found) > 0)
    assert allowed[found].all()
    # Equally near rows may stand for each other, so the scores are compared.
    np.testing.assert_allclose(
        np.sort(matrix[found] @ query)[::-1], naive(matrix, query, allowed, limit), atol=2e-6
    )


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch):
    """Scan codes where so few rows would be gathered instead, and doubt the first answer."""
    monkeypatch.setattr(base, "_FEW_ROWS", 0)
    monkeypatch.setattr(exact, "_FIRST", 4)


@pytest.fixture
def built(tmp_path):
    def build(matrix, **options):
        options = {"compressed_bytes": 0, **options}
        manifest, kept = build_search(matrix, tmp_path, "rows", **options)
        return open_search(matrix, tmp_path, "rows", manifest, kept)

    return build


@st.composite
def questions(draw):
    """A matrix with repeated rows, a query, a mask and a limit, which may exceed all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, width = draw(st.integers(1, 300)), draw(st.integers(1, 40))
    matrix = unit(rng.standard_normal((count, width)))
    matrix[rng.random(count) < draw(st.sampled_from([0, 0.3, 1]))] = matrix[0]
    query = matrix[0] if draw(st.booleans()) else unit(rng.standard_normal((1, width)))[0]
    allowed = rng.random(count) < draw(st.sampled_from([0, 0.02, 0.5, 1]))
    return matrix, query, allowed, draw(st.integers(1, 400))


@given(questions())
@settings(deadline=None)
def test_plain_search_is_exact(question):
    matrix, query, allowed, limit = question
    found = PlainSearch(matrix).nearest(query, allowed, limit)
    assert_nearest(found, matrix, query, allowed, limit)


@given(questions())
@settings(deadline=None, max_examples=60)
def test_codes_and_float32_give_the_same_answer(tmp_path_factory, question):
    matrix, query, allowed, limit = question
    folder = tmp_path_factory.mktemp("codes")
    manifest, kept = build_search(matrix, folder, "rows", compressed_bytes=0)
    search = open_search(matrix, folder, "rows", manifest, kept)
    assert isinstance(search, Int8Search)
    assert_nearest(search.nearest(query, allowed, limit), matrix, query, allowed, limit)


@given(questions())
@settings(deadline=None)
def test_no_product_of_codes_is_further_off_than_the_bound(question):
    matrix, query, _, _ = question
    codes = code_rows(matrix, lambda numbers: None)
    code = codes.query(query)
    approximate = codes.round(matrix @ codes.rotation) @ code.values[0] * code.step
    assert np.abs(approximate - matrix @ query).max() <= code.error


def test_a_query_of_zeros_finds_rows_all_the_same(built):
    matrix = clustered(50, 8)
    search = built(matrix)
    assert len(search.nearest(np.zeros(8, dtype=np.float32), np.ones(50, dtype=bool), 5)) == 5


def test_a_small_matrix_needs_no_codes(tmp_path):
    matrix = clustered(100, 8)
    assert build_search(matrix, tmp_path, "rows") == (None, {})
    assert list(tmp_path.iterdir()) == []
    assert isinstance(open_search(matrix, tmp_path, "rows", None, {}), PlainSearch)


KINDS, DRAWN = kinds_and_rows(6060, 24, 5, 40)
LARGE, QUERIES = unit(DRAWN[:6000]), unit(DRAWN[6000:])


@pytest.fixture(scope="module")
def approximate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    manifest, kept = build_search(LARGE, folder, "rows", ann_items=1000)
    search = open_search(LARGE, folder, "rows", manifest, kept)
    assert isinstance(search, AnnSearch)
    return search


def test_more_rows_than_the_setting_are_searched_in_lists(approximate):
    assert approximate.lists.sizes.sum() == 6000
    assert sorted(approximate.lists.members) == list(range(6000))
    # Less is compared than there is, or nothing would be gained.
    assert approximate.budget(10) < 4000


@pytest.mark.parametrize("limit", [10, 100])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.3, 1.0])
def test_recall_is_what_was_tuned_for(approximate, share, limit):
    allowed = np.random.default_rng(6).random(6000) < share
    hits = true = 0
    for query in QUERIES:
        best = naive(LARGE, query, allowed, limit)
        found = approximate.nearest(query, allowed, limit)
        hits += np.sum(LARGE[found] @ query >= best[-1] - 1e-6)
        true += len(best)
    assert hits / true >= 0.95


@pytest.mark.parametrize("same", [True, False])
def test_a_filter_by_kind_costs_no_recall(approximate, same):
    hits = 0
    for query, kind in zip(QUERIES, KINDS[6000:], strict=True):
        # Of a group of kinds to which the query belongs, or does not.
        allowed = ((KINDS[:6000] - kind) % 40 < 8) == same
        best = naive(LARGE, query, allowed, 20)
        found = approximate.nearest(query, allowed, 20)
        hits += np.sum(LARGE[found] @ query >= best[-1] - 1e-6)
    assert hits / (20 * len(QUERIES)) >= 0.95


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3, 50, 2000, 6000]), st.integers(1, 7000))
@settings(deadline=None, max_examples=60)
def test_filters_never_leave_fewer_than_there_are(seed, passing, limit):
    rng = np.random.default_rng(seed)
    allowed = np.zeros(6000, dtype=bool)
    allowed[rng.choice(6000, passing, replace=False)] = True
    query = QUERIES[seed % len(QUERIES)]
    search = _shared()
    found = search.nearest(query, allowed, limit)
    assert len(found) == min(passing, limit)
    assert allowed[found].all()
    assert np.all(np.diff(found) > 0)


@pytest.fixture(autouse=True)
def _share(approximate):
    _SHARED.append(approximate)


_SHARED: list[AnnSearch] = []


def _shared():
    return _SHARED[0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_all_lists_give_the_exact_answer(approximate, threads, share):
    allowed = np.random.default_rng(7).random(6000) < share
    for query in QUERIES[:10]:
        found = approximate.exact(query, allowed, 50, threads=threads)
        assert_nearest(found, LARGE, query, allowed, 50)


def test_where_few_rows_pass_the_answer_is_exact_and_no_list_is_chosen(approximate, monkeypatch):
    monkeypatch.delattr(Lists, "near")
    monkeypatch.setattr(base, "_FEW_ROWS", 200)
    allowed = np.random.default_rng(9).random(6000) < 0.02
    for query in QUERIES:
        assert_nearest(approximate.nearest(query, allowed, 50), LARGE, query, allowed, 50)


def test_longer_answers_compare_more(approximate):
    budgets = [approximate.budget(limit) for limit in (1, 10, 11, 100, 1000, 2000)]
    assert budgets == sorted(budgets)
    assert budgets[-1] >= 2 * budgets[-2] - 1


@pytest.mark.parametrize("rows", [101, 150])
def test_few_rows_can_lie_in_lists_too(built, rows):
    matrix = clustered(rows, 8, kinds=1)
    matrix[:] = matrix[0]
    search = built(matrix, ann_items=100)
    found = search.nearest(matrix[0], np.ones(rows, dtype=bool), 120)
    assert len(found) == min(rows, 120)


def test_top_rows_of_equal_scores_are_as_many_as_asked():
    scores, allowed = np.zeros(10, dtype=np.float32), np.arange(10) % 2 == 0
    found = top_rows(scores, allowed, 3)
    assert len(found) == 3
    assert allowed[found].all()
