"""Requests that TorchServe puts into one batch answer as if each had come alone."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from newshelf.catalog.catalog import Catalog
from newshelf.server.client import Client
from newshelf.serving.trace import BATCH_SIZE
from tests.e2e.metrics_page import settled, told
from tests.e2e.products import (
    ENCODER,
    JSON,
    RECOMMENDER,
    base64_of,
    form_of,
    picture_of,
    product_of,
)

Row = dict[str, Any]
"""What ``httpx.Client.post`` takes."""
Error = tuple[int, str, str | None]


def typed(content: bytes, kind: str) -> Row:
    return {"content": content, "headers": {"Content-Type": kind}}


def encoder_rows(catalog: Catalog) -> tuple[list[Row], list[tuple[Row, Error]]]:
    """Requests of every form and length, and requests that are refused."""
    products = [product_of(catalog, row) for row in range(8)]
    pictures = [picture_of(catalog, row) for row in range(8)]
    good: list[Row] = [
        {"json": products[0]},
        {"json": {"title": "ring"}},
        {"data": form_of(products[2]), "files": {"image": pictures[2]}},
        typed(pictures[3], "image/jpeg"),
        {"json": {"title": "a very long title " * 40}},
        {"json": {"instances": [products[5], {"image": base64_of(pictures[5])}]}},
    ]
    bad: list[tuple[Row, Error]] = [
        (typed(b"{title: ring}", JSON), (400, "not_json", None)),
        ({"json": {"title": 7}}, (422, "invalid_field", "title")),
        (typed(pictures[0][:500], "image/jpeg"), (422, "bad_picture", "image")),
        ({"json": {"title": "x" * 100_000}}, (413, "too_large", "title")),
        (typed(b"<a/>", "text/xml"), (415, "unsupported_media", None)),
        ({"json": {"image": "@@@"}}, (422, "invalid_field", "image")),
    ]
    return good, bad


def recommender_rows(catalog: Catalog) -> tuple[list[Row], list[tuple[Row, Error]]]:
    ids = list(catalog.items["id"])
    inline = {**product_of(catalog, 7), "image": base64_of(picture_of(catalog, 7))}
    good = [
        {"history": ids[:1]},
        {"history": ids[10:30], "k": 20, "explain": True},
        {"history": [inline, ids[3]], "diversity": 0.5},
        {"history": ids[40:42], "candidates": [ids[2], {"id": "new", "title": "jade ring"}]},
        {"history": []},
        {"history": ids[50:53], "filters": {"product_type": "Home"}},
    ]
    bad: list[tuple[Row, Error]] = [
        (typed(b"", JSON), (400, "not_json", None)),
        ({"json": {"k": 0}}, (422, "invalid_field", "k")),
        ({"json": {"candidates": ["nobody"]}}, (404, "unknown_item", "candidates")),
        (
            {"json": {"history": [ids[0], {"image": "////"}]}},
            (422, "bad_picture", "history[1].image"),
        ),
        ({"json": {"histroy": []}}, (422, "invalid_field", "histroy")),
        ({"json": {"candidates": ["c"] * 10_000}}, (413, "too_large", "candidates")),
    ]
    return [{"json": body} for body in good], bad


def check_alike(together: Any, alone: Any) -> None:
    """The same answer, up to rounding and to what names the request."""
    if isinstance(alone, dict):
        assert set(together) == set(alone)
        for name in set(alone) - {"request_id"}:
            check_alike(together[name], alone[name])
    elif isinstance(alone, list) and alone and isinstance(alone[0], float):
        np.testing.assert_allclose(together, alone, atol=1e-5)
    elif isinstance(alone, list):
        assert len(together) == len(alone)
        for left, right in zip(together, alone, strict=True):
            check_alike(left, right)
    elif isinstance(alone, float):
        assert together == pytest.approx(alone, abs=1e-3)
    else:
        assert together == alone


@pytest.mark.parametrize(
    ("model", "path", "rows"),
    [("encoder", ENCODER, encoder_rows), ("recommender", RECOMMENDER, recommender_rows)],
)
def test_bad_rows_fail_alone_and_their_batch_mates_are_answered(
    http: httpx.Client, client: Client, catalog: Catalog, model: str, path: str, rows: Any
) -> None:
    good, bad = rows(catalog)
    alone = [http.post(path, **row).json() for row in good]

    before = settled(client)
    mixed = [row for pair in zip(good, (row for row, _ in bad), strict=True) for row in pair]
    with ThreadPoolExecutor(len(mixed)) as pool:
        answers = list(pool.map(lambda row: http.post(path, **row), mixed))

    for response, expected in zip(answers[0::2], alone, strict=True):
        assert response.status_code == 200, response.text
        check_alike(response.json(), expected)
    for response, (_, (status, code, field)) in zip(answers[1::2], bad, strict=True):
        body = response.json()
        assert (response.status_code, body["code"], body["field"]) == (status, code, field)
        assert body["message"]
    assert len({response.headers["x-request-id"] for response in answers}) == len(answers)

    after = settled(client, batched=told(before) + len(mixed))
    was, now = (page[model, BATCH_SIZE.name] for page in (before, after))
    assert now.sum - was.sum == len(mixed)
    assert now.count - was.count < len(mixed), "no two requests shared a batch"
