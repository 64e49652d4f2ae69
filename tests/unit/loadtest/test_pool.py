"""What is sent is what the settings say, and what the server reads."""

import base64
import io
import json
from collections import Counter
from dataclasses import replace
from email.parser import BytesParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from loadtest.pool import Drawer, draw_kinds, draw_pool, histories, replayed_sessions, zipf_shares
from loadtest.requests import Rendered
from loadtest.traffic import MODEL_KINDS, Kind, TrafficSettings
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.config import Limits
from newshelf.errors import CatalogError
from newshelf.serving.products import FormBody, open_envelope
from newshelf.serving.protocol import RawRequest


@pytest.fixture(scope="module")
def catalog(shop: Path) -> Catalog:
    return read_catalog(shop)


def drawer(catalog: Catalog, seed: int = 7, **settings: object) -> Drawer:
    return Drawer(catalog, TrafficSettings(**settings), np.random.default_rng(seed))


def take(drawn: Drawer, count: int) -> list[Rendered]:
    return [request for request, _ in zip(drawn, range(count), strict=False)]


def opened(request: Rendered, number: int = 17) -> object:
    """As the server opens it, a form by the standard library's parser."""
    body = request.body(number)
    assert len(body) == request.size
    parts = {"body": body}
    if request.content_type.startswith("multipart"):
        head = f"Content-Type: {request.content_type}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + body)
        parts = {
            str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
            for part in message.get_payload()
        }
    return open_envelope(RawRequest(parts, request.content_type), Limits())


def test_kinds_come_in_their_shares(catalog: Catalog) -> None:
    mix = {"encode text": 1, "recommend history": 6, "recommend candidates": 1}
    requests = take(drawer(catalog, mix=mix, cold_share=0.25, bad_share=0.2), 4000)
    found = Counter(request.kind for request in requests)
    expected = {
        "bad": 0.2, "encode text": 0.1, "recommend history": 0.45,
        "recommend unseen": 0.15, "recommend candidates": 0.1,
    }  # fmt: skip
    assert found.keys() == expected.keys()
    chi2 = stats.chisquare(
        [found[kind] for kind in expected], [4000 * share for share in expected.values()]
    )
    assert chi2.pvalue > 0.001


def test_items_are_looked_at_by_zipfs_law(catalog: Catalog) -> None:
    traffic = TrafficSettings(zipf_exponent=1.2, session_requests=1)
    drawn = histories(catalog, traffic, np.random.default_rng(1))
    counts = Counter(next(drawn)[-1] for _ in range(20_000))
    items = len(catalog.items)
    ordered = np.array(sorted([*counts.values(), *[0] * (items - len(counts))], reverse=True))
    expected = 20_000 * zipf_shares(items, 1.2)
    assert stats.chisquare(ordered, expected).pvalue > 0.001
    np.testing.assert_allclose(zipf_shares(3, 1), np.array([6, 3, 2]) / 11)
    np.testing.assert_allclose(zipf_shares(4, 0), 0.25)


def test_sessions_grow_item_by_item_to_their_mean_length(catalog: Catalog) -> None:
    traffic = TrafficSettings(session_requests=5, shoppers=1, zipf_exponent=0)
    drawn = histories(catalog, traffic, np.random.default_rng(2))
    lengths, before = [], next(drawn)
    for _ in range(20_000):
        history = next(drawn)
        if len(history) == 1:
            lengths.append(len(before))
        else:
            assert history[:-1] == before
        before = history
    assert np.mean(lengths[1:]) == pytest.approx(5, rel=0.05)


def test_a_history_names_the_most_recent_items_only(catalog: Catalog) -> None:
    traffic = TrafficSettings(session_requests=40, longest_history=7, shoppers=3)
    drawn = histories(catalog, traffic, np.random.default_rng(2))
    assert max(len(next(drawn)) for _ in range(500)) == 7


def test_events_are_replayed_shopper_by_shopper() -> None:
    events = pd.DataFrame(
        [("b", "1", 100), ("a", "2", 110), ("b", "3", 120), ("a", "4", 9000), ("b", "5", 130)],
        columns=["user_id", "item_id", "timestamp"],
    )
    assert replayed_sessions(events) == [["1", "3", "5"], ["2"], ["4"]]


def test_replayed_histories_are_those_of_the_events(catalog: Catalog) -> None:
    assert catalog.events is not None
    traffic = TrafficSettings(popularity="events", shoppers=1, longest_history=200)
    drawn = histories(catalog, traffic, np.random.default_rng(2))
    sessions = {tuple(session) for session in replayed_sessions(catalog.events)}
    seen = [tuple(next(drawn)) for _ in range(200)]
    ended = [ended for ended, begun in pairwise(seen) if len(begun) == 1]
    assert ended
    assert set(ended[1:]) <= sessions


def test_without_events_there_is_nothing_to_replay(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="no events to replay"):
        drawer(replace(catalog, events=None), popularity="events")


def test_equal_seeds_draw_equal_requests(catalog: Catalog) -> None:
    first, again, other = (take(drawer(catalog, seed), 60) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_how_pictures_are_drawn_does_not_change_who_asks_for_what(catalog: Catalog) -> None:
    plain, small = (
        [r for r in take(drawer(catalog, picture_px=px), 200) if r.kind == "recommend history"]
        for px in ((), (32, 64))
    )
    assert plain == small


@pytest.mark.parametrize("kind", [kind for kind in MODEL_KINDS if kind != "bad"])
def test_the_server_can_read_every_kind_and_each_sending_is_fresh(shop: Path, kind: Kind) -> None:
    requests = draw_kinds(shop, TrafficSettings(), [7], [kind], 40)[kind]
    for request in requests:
        first, second = opened(request, 1), opened(request, 10**15)
        is_new = kind.startswith("encode") or kind == "recommend unseen"
        assert (first != second) is is_new
        assert request.expected == 200
    media = {request.content_type.partition(";")[0] for request in requests}
    assert media == {
        "encode picture": {"image/jpeg", "multipart/form-data"},
        "encode both": {"application/json", "multipart/form-data"},
    }.get(kind, {"application/json"})


def pictures(requests: list[Rendered]) -> list[bytes]:
    found = []
    for request in requests:
        body = opened(request)
        if isinstance(body, FormBody):
            found.append(bytes(body.image or b""))
        else:
            assert isinstance(body, dict)
            found.append(base64.b64decode(body["image"]))
    return found


def test_pictures_are_of_the_sizes_that_were_asked_for(shop: Path) -> None:
    traffic = TrafficSettings(picture_px=(40, 90))
    drawn = draw_kinds(shop, traffic, [7], ["encode both", "encode picture"], 30)
    sides = set()
    for data in pictures([*drawn["encode both"], *drawn["encode picture"]]):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            sides.add(max(image.size))
    assert sides == {40, 90}


def test_an_unseen_product_is_the_last_of_a_history(shop: Path) -> None:
    for request in draw_kinds(shop, TrafficSettings(), [7], ["recommend unseen"], 20)[
        "recommend unseen"
    ]:
        *before, last = json.loads(request.body(3))["history"]
        assert all(isinstance(one, str) for one in before)
        assert isinstance(last, dict)
        assert "id" not in last


def test_the_pool_is_bounded_in_number_and_memory(shop: Path) -> None:
    mix = {"encode both": 1}
    assert len(draw_pool(shop, TrafficSettings(requests=30), [7])) == 30
    settings = TrafficSettings(mix=mix, bad_share=0, requests=100_000, requests_mb=1)
    pool = draw_pool(shop, settings, [7])
    assert 10 < len(pool) < 1000
    assert sum(request.size for request in pool) <= 1e6


@pytest.mark.parametrize(
    ("columns", "mix", "says"),
    [
        ({"image_link": None}, {"encode picture": 1}, "no pictures"),
        ({"image_link": None}, {"encode both": 1}, "no products with a title and a picture"),
        ({"title": None, "description": None}, {"encode text": 1}, "no titles"),
        ({"image_link": "items.parquet"}, {"encode picture": 1}, "no pictures"),
    ],
)
def test_a_catalogue_without_what_is_sent_is_refused(
    catalog: Catalog, columns: dict[str, object], mix: dict[str, float], says: str
) -> None:
    lacking = replace(catalog, items=catalog.items.assign(**columns))
    with pytest.raises(CatalogError, match=says):
        drawer(lacking, mix=mix)


def test_a_catalogue_without_pictures_can_still_be_asked_for(catalog: Catalog) -> None:
    lacking = replace(catalog, items=catalog.items.assign(image_link=None))
    requests = take(drawer(lacking, mix={"recommend history": 1}, cold_share=0.5), 50)
    assert {request.kind for request in requests} >= {"recommend history", "recommend unseen"}


def test_pictures_that_cannot_be_read_are_left_out(catalog: Catalog) -> None:
    links = catalog.items["image_link"].copy()
    links.iloc[::2] = "items.parquet"
    broken = replace(catalog, items=catalog.items.assign(image_link=links))
    drawn = drawer(broken, mix={"encode picture": 1}, bad_share=0)
    for data in pictures(take(drawn, 60)):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
