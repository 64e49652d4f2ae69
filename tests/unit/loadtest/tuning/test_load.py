"""The load that a separate program sends, and the requests that are drawn."""

import base64
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.servers import noop_server
from loadtest.requests import Rendered
from loadtest.tuning.load import (
    PLAN,
    ClosedLoopPlan,
    LoadResult,
    draw_requests,
    run_load,
)
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.errors import CatalogError, ServerError
from newshelf.sample.build import draw_sample

POST = Rendered("nothing", "/predictions/nothing", "application/json", b'{"title": "ring"}')


def result(latencies: list[float], failures: dict[str, int] | None = None) -> LoadResult:
    return LoadResult(2.0, latencies, failures or {}, 0.1)


def test_a_separate_process_sends_the_load() -> None:
    with noop_server() as url:
        plan = ClosedLoopPlan(url, [POST], 3, {"A": "b"}, count=30, kept_header="content-type")
        sent = run_load(plan)
    assert len(sent.latencies_ms) == 30
    assert sent.per_second == pytest.approx(30 / sent.measured_s)
    assert sent.failed_share == 0
    assert 0 < sent.percentile_ms(50) <= sent.percentile_ms(99) <= max(sent.latencies_ms)
    assert {one.header for one in sent.exchanges} == {"application/json"}
    assert all(one.sent_ns < one.end_ns for one in sent.exchanges)


def test_a_plan_that_cannot_be_run_is_an_error() -> None:
    with pytest.raises(ServerError, match="nowhere"):
        run_load(ClosedLoopPlan("nowhere", [POST], clients=1, count=1))


@pytest.mark.parametrize(
    "change",
    [
        {"requests": []},
        {"clients": 0},
        {"seconds": 1},
        {"count": None},
        {"cleints": 3},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    plan = {"url": "http://127.0.0.1:1", "requests": [POST], "clients": 1, "count": 1}
    assert PLAN.validate_python(plan).requests == [POST]
    with pytest.raises(ValueError, match="ClosedLoopPlan"):
        PLAN.validate_python(plan | change)


def test_a_plan_is_read_as_it_was_written() -> None:
    binary = Rendered("nothing", "/", "image/jpeg", b"\xff\xd8\x00", b"\xfb\xef", fresh=True)
    plan = ClosedLoopPlan("http://127.0.0.1:1", [POST, binary], 2, {"A": "b"}, seconds=1.5)
    assert PLAN.validate_json(PLAN.dump_json(plan)) == plan


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=300), st.floats(1, 100))
def test_a_percentile_is_the_lowest_latency_that_the_share_does_not_exceed(
    latencies: list[float], percent: float
) -> None:
    value = result(latencies).percentile_ms(percent)
    kept = [one for one in latencies if one <= value]
    fewer = [one for one in latencies if one < value]
    assert value in latencies
    assert len(kept) / len(latencies) >= percent / 100 - 1e-9
    assert len(fewer) / len(latencies) < percent / 100 + 1e-9


def test_without_an_answer_all_failed() -> None:
    assert result([]).failed_share == 1
    assert result([]).percentile_ms(99) == float("inf")
    assert result([], {"503": 3}).failed_share == 1
    assert result([1.0] * 3, {"503": 1}).failed_share == 0.25


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("shops") / "shop"
    draw_sample(folder, products=60, shoppers=20)
    return read_catalog(folder)


def test_products_are_drawn_with_title_and_picture_and_none_twice(catalog: Catalog) -> None:
    requests = draw_requests("encoder", catalog, 150)
    assert {request.path for request in requests} == {"/predictions/encoder"}
    bodies = [json.loads(request.before) for request in requests]
    pictures = [base64.b64decode(body["image"]) for body in bodies]
    assert len(set(pictures)) == len({body["title"] for body in bodies}) == 150
    for picture in pictures[:5]:
        with Image.open(io.BytesIO(picture)) as opened:
            opened.load()


def test_histories_are_of_the_catalogues_ids(catalog: Catalog) -> None:
    ids = set(catalog.items["id"])
    bodies = [json.loads(one.before) for one in draw_requests("recommender", catalog, 50)]
    assert all(set(body["history"]) <= ids for body in bodies)
    lengths = {len(body["history"]) for body in bodies}
    assert min(lengths) >= 1
    assert max(lengths) <= 20
    assert len(lengths) > 5


def test_equal_seeds_draw_equal_requests(catalog: Catalog) -> None:
    assert draw_requests("encoder", catalog, 5) == draw_requests("encoder", catalog, 5)
    assert draw_requests("encoder", catalog, 5) != draw_requests("encoder", catalog, 5, seed=8)


def test_a_catalogue_without_content_is_refused(catalog: Catalog) -> None:
    empty = replace(catalog, items=catalog.items.assign(title=None, image_link=None))
    with pytest.raises(CatalogError, match="a title or a readable picture"):
        draw_requests("encoder", empty, 1)
