"""Bad input over HTTP: each its own answer, and no worker dies of it."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from newshelf.pipeline.serve import Served
from newshelf.server.client import Client
from newshelf.server.process import members
from newshelf.serving.protocol import OLD_DEADLINE_HEADER, TIMEOUT_HEADER
from tests.e2e.products import ENCODER, JSON, RECOMMENDER, base64_of, check_embedding, saved

GOOD = {"title": "green jade ring"}
MODELS = {"encoder": (ENCODER, GOOD), "recommender": (RECOMMENDER, {"history": [], "k": 1})}


def workers(client: Client, server: Served) -> dict[str, list[int]]:
    """Process ids of each model's workers that are alive."""
    alive = {process.pid for process in members(server.state.current().process)}
    return {
        model: [worker["pid"] for worker in client.describe(model)[0]["workers"]
                if worker["pid"] in alive and worker["status"] == "READY"]
        for model in MODELS
    }  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _the_same_workers_live_on(client: Client, server: Served, http: httpx.Client) -> Iterator[None]:
    """Whatever the tests of this module send."""
    before = workers(client, server)
    assert [len(pids) for pids in before.values()] == [1, 1]
    yield
    assert workers(client, server) == before
    for path, body in MODELS.values():
        assert http.post(path, json=body).status_code == 200


def picture(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Blue above, red below, dark towards the left."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    shade = 80 + 175 * columns / size[0]
    upper = rows < size[1] / 2
    pixels = np.stack([np.where(upper, 0, shade), 0 * shade, np.where(upper, shade, 0)], axis=2)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header promises ``side × side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    header = side.to_bytes(4) + side.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def body(content: bytes, kind: str | None = JSON, **headers: str) -> dict[str, Any]:
    typed = {} if kind is None else {"Content-Type": kind}
    return {"content": content, "headers": typed | headers}


def product(**fields: object) -> dict[str, Any]:
    return {"json": fields}


def form(*parts: bytes) -> dict[str, Any]:
    """A form of these parts, written by hand."""
    content = b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"
    return body(content, "multipart/form-data; boundary=x")


JPEG = saved(picture(size=(200, 150)), "JPEG")
TITLE = json.dumps(GOOD).encode()
WIDE = saved(Image.new("1", (6_300, 6_300)), "PNG")
LONG_DEADLINE = {TIMEOUT_HEADER: "9" * 400}

TO_ENCODER: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "not JSON": (body(b"{title: ring}"), 400, "not_json", None),
    "not JSON, with a charset": (
        body(b"{", "application/json; charset=utf-8"), 400, "not_json", None,
    ),
    "UTF-16": (body(TITLE.decode().encode("utf-16")), 400, "not_json", None),
    "no body": (body(b""), 400, "not_json", None),
    "no body and no content type": (body(b"", None), 400, "not_json", None),
    "text without a content type": (body(b"hello", None), 400, "not_json", None),
    "a list": ({"json": [GOOD]}, 422, "invalid_field", None),
    "deep": (body(b"[" * 100_000), 400, "not_json", None),
    "wrong type": (product(title=["ring"]), 422, "invalid_field", "title"),
    "price as text": (product(title="a", price="7"), 422, "invalid_field", "price"),
    "unknown field": (product(title="a", colour="red"), 422, "invalid_field", "colour"),
    "another model's field": (product(title="a", history=[]), 422, "invalid_field", "history"),
    "bad base64": (product(image="!!!!"), 422, "invalid_field", "image"),
    "a URL": (product(image="http://127.0.0.1:1/a.jpg"), 422, "invalid_field", "image"),
    "a file URL": (product(image="file:///etc/passwd"), 422, "invalid_field", "image"),
    "truncated": (body(JPEG[: len(JPEG) // 2], "image/jpeg"), 422, "bad_picture", "image"),
    "truncated, base64": (product(image=base64_of(JPEG[:700])), 422, "bad_picture", "image"),
    "no picture": (body(b"hello", "image/png"), 422, "bad_picture", "image"),
    "0 bytes": (body(b"", "image/jpeg"), 422, "bad_picture", "image"),
    "0 bytes in a form": ({"files": {"image": ("a.jpg", b"")}}, 422, "bad_picture", "image"),
    "bomb": (body(bomb(30_000), "image/png"), 413, "too_large", "image"),
    "larger bomb": (product(image=base64_of(bomb(2**31 - 1))), 413, "too_large", "image"),
    "100,000 characters": (product(title="x " * 50_000), 413, "too_large", "title"),
    "65 instances": ({"json": {"instances": [GOOD] * 65}}, 413, "too_large", "instances"),
    "above our size": (body(b" " * 8_100_000), 413, "too_large", None),
    "urlencoded": ({"data": GOOD}, 415, "unsupported_media", None),
    "odd content type": (body(TITLE, "application/" + "x" * 500), 415, "unsupported_media", None),
    "form without boundary": (body(b"abc", "multipart/form-data"), 400, "bad_request", None),
    "form without parts": (form(), 422, "invalid_field", None),
    "form that is none": (
        body(b"abc", "multipart/form-data; boundary=x"), 422, "invalid_field", None,
    ),
    "form with bytes as name": (
        form(b'Content-Disposition: form-data; name="\xff\xfe"\r\n\r\na'),
        422, "invalid_field", None,
    ),
    "form with two pictures": (
        {"files": [("image", ("a.jpg", b"oops")), ("image", ("b.jpg", JPEG))]},
        422, "invalid_field", "image",
    ),
    "form with two titles": (
        {"files": [("title", (None, "jade")), ("title", (None, "ring"))]},
        422, "invalid_field", "title",
    ),
    "form with an unknown part": (
        {"files": {"title": (None, "jade"), "shelf": (None, "3")}}, 422, "invalid_field", "shelf",
    ),
    "form with a picture called data": (
        {"files": {"data": ("a.jpg", JPEG)}}, 422, "invalid_field", "data",
    ),
    "form with a picture in base64": (
        {"files": {"image": (None, base64_of(JPEG))}}, 422, "invalid_field", "image",
    ),
    "gzip": (
        body(gzip.compress(TITLE), **{"Content-Encoding": "gzip"}),
        415, "unsupported_media", None,
    ),
    "32 pictures of 40 million pixels": (
        {"json": {"instances": [{"image": base64_of(WIDE)}] * 32}}, 413, "too_large", None,
    ),
    "form with bytes as title": (
        form(b'Content-Disposition: form-data; name="title"\r\n\r\n\xff\xfe'),
        422, "invalid_field", "title",
    ),
    "expired": (body(TITLE, **{TIMEOUT_HEADER: "0"}), 504, "deadline_exceeded", None),
    "an epoch": (
        body(TITLE, **{TIMEOUT_HEADER: "1700000000000"}), 422, "invalid_field", TIMEOUT_HEADER,
    ),
    "the header of before": (
        body(TITLE, **{OLD_DEADLINE_HEADER: "1700000000000"}),
        422, "invalid_field", OLD_DEADLINE_HEADER,
    ),
    "deadline in words": (
        body(TITLE, **{TIMEOUT_HEADER: "soon"}), 422, "invalid_field", TIMEOUT_HEADER,
    ),
    "endless deadline": (body(TITLE, **LONG_DEADLINE), 422, "invalid_field", TIMEOUT_HEADER),
}  # fmt: skip

TO_RECOMMENDER: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "not JSON": (body(b"\x00\x01"), 400, "not_json", None),
    "k of 0": (product(k=0), 422, "invalid_field", "k"),
    "k of 10^9": (product(k=10**9), 422, "invalid_field", "k"),
    "k as text": (product(k="10"), 422, "invalid_field", "k"),
    "10,000 candidates": (
        product(candidates=[f"c{n}" for n in range(10_000)]), 413, "too_large", "candidates",
    ),
    "unknown candidates": (
        product(candidates=["../../etc/passwd", "nobody"]), 404, "unknown_item", "candidates",
    ),
    "10,000 in history": (product(history=["a"] * 10_000), 413, "too_large", "history"),
    "history of numbers": (product(history=[7]), 422, "invalid_field", "history[0]"),
    "unknown field": (product(histroy=[]), 422, "invalid_field", "histroy"),
    "unknown filter": (
        product(filters={"colour": "red"}), 422, "invalid_field", "filters.colour",
    ),
    "inline product without content": (
        product(history=[{"price": 3}]), 422, "invalid_field", "history[0]",
    ),
    "inline bomb": (
        product(history=[{"image": base64_of(bomb(30_000))}]), 413, "too_large", "history[0].image",
    ),
    "candidate without id": (
        product(candidates=[GOOD]), 422, "invalid_field", "candidates[0].id",
    ),
    "a picture": (body(JPEG, "image/jpeg"), 415, "unsupported_media", None),
    "expired": (body(b"{}", **{TIMEOUT_HEADER: "0"}), 504, "deadline_exceeded", None),
}  # fmt: skip

CASES = [
    pytest.param(path, *case, id=f"{path.rpartition('/')[2]}: {name}")
    for path, cases in ((ENCODER, TO_ENCODER), (RECOMMENDER, TO_RECOMMENDER))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("path", "request_", "status", "code", "field"), CASES)
def test_each_is_told_what_is_wrong(
    http: httpx.Client,
    path: str,
    request_: dict[str, Any],
    status: int,
    code: str,
    field: str | None,
) -> None:
    response = http.post(path, **request_)
    answer = response.json()
    assert (response.status_code, answer["code"]) == (status, code), answer
    assert set(answer) == {"code", "message", "field"}
    assert field is None or answer["field"] == field, answer
    assert 10 < len(answer["message"]) < 300


HANDLED: dict[str, Callable[[], bytes]] = {
    "CMYK": lambda: saved(picture("CMYK"), "JPEG"),
    "16-bit": lambda: saved(Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)), "PNG"),
    "animated": lambda: saved(
        picture("P"), "GIF", save_all=True, append_images=[Image.new("P", (60, 40))]
    ),
    "transparent": lambda: saved(picture("RGBA"), "WEBP"),
    "1 × 1": lambda: saved(picture(size=(1, 1)), "PNG"),
}


@pytest.mark.parametrize("name", HANDLED)
def test_unusual_pictures_are_encoded(http: httpx.Client, name: str) -> None:
    response = http.post(ENCODER, **body(HANDLED[name](), "application/octet-stream"))
    assert response.status_code == 200, response.text
    check_embedding(response.json()["embedding"])


def test_a_picture_is_seen_upright(http: httpx.Client) -> None:
    turned_left = Image.Exif()
    turned_left[0x0112] = 8
    upright = picture()
    lying = upright.rotate(-90, expand=True)
    upright_one, told, untold = (
        check_embedding(http.post(ENCODER, **body(data, "image/png")).json()["embedding"])
        for data in (
            saved(upright, "PNG"), saved(lying, "PNG", exif=turned_left), saved(lying, "PNG"),
        )
    )  # fmt: skip
    np.testing.assert_allclose(told, upright_one, atol=1e-5)
    assert untold @ upright_one < 0.9999


def test_an_empty_history_is_answered(http: httpx.Client) -> None:
    answer = http.post(RECOMMENDER, json={"history": []}).json()
    assert len(answer["items"]) == 10


def test_bodies_in_chunks_and_deadlines_to_come_are_fine(http: httpx.Client) -> None:
    later = {TIMEOUT_HEADER: "600000", "Content-Type": JSON}
    plain = http.post(ENCODER, json=GOOD).json()
    chunked = http.post(ENCODER, content=iter([TITLE[:5], TITLE[5:]]), headers=later)
    assert chunked.request.headers["transfer-encoding"] == "chunked"
    np.testing.assert_allclose(chunked.json()["embedding"], plain["embedding"], atol=1e-5)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_that_torchserve_itself_refuses(http: httpx.Client, in_chunks: bool) -> None:
    size = 9_000_000
    content = iter([b" " * (size // 9)] * 9) if in_chunks else b" " * size
    assert http.post(ENCODER, content=content, headers={"Content-Type": JSON}).status_code == 413


@pytest.mark.parametrize(
    "path",
    ["/predictions/nothing", f"{ENCODER}/9.9", "/predictions/..%2f..%2fetc%2fpasswd",
     "/predictions/%00", "/predictions/", "/etc/passwd"],
)  # fmt: skip
def test_there_is_nothing_else_to_ask(http: httpx.Client, path: str) -> None:
    response = http.post(path, json=GOOD)
    assert response.status_code == 404
    assert "root:" not in response.text


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
def test_requests_without_a_body_are_refused(http: httpx.Client, method: str) -> None:
    response = http.request(method, ENCODER)
    assert response.status_code == 400
    assert method == "HEAD" or response.json()["code"] == "not_json"


def test_a_client_that_hangs_up_harms_nobody(http: httpx.Client) -> None:
    impatient = httpx.Timeout(60, read=0.005)
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            http.post(ENCODER, json=GOOD, timeout=impatient)
    assert http.post(ENCODER, json=GOOD).status_code == 200
