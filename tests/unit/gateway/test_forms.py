"""Forms and pictures: taken apart here, so that TorchServe sees JSON and no fault of a client's."""

import base64
import io
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from newshelf.config import Limits
from newshelf.errors import RequestError
from newshelf.gateway.schemas import parse_encode_body
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

LIMITS = Limits()
JPEG = io.BytesIO()
Image.new("RGB", (8, 6), "teal").save(JPEG, "JPEG")
JPEG = JPEG.getvalue()
FORM = "multipart/form-data; boundary=x"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value


def form(*parts: bytes) -> bytes:
    return b"\r\n".join([*parts, b"--x--\r\n"])


def encode(gateway: Gateway, body: bytes, content_type: str = FORM) -> httpx.Response:
    return gateway.http.post("/v1/encode", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "request_",
    [
        {"files": {"image": ("a.jpg", JPEG)}, "data": {"title": "jade", "price": "7.5"}},
        {"files": {"image": ("a.jpg", JPEG)}},
        {"files": {"title": (None, "jade")}},
        {"content": JPEG, "headers": {"Content-Type": "image/jpeg"}},
        {"content": JPEG},
        {"json": {"title": "jade", "image": base64.b64encode(JPEG).decode()}},
        {"json": {"instances": [{"title": "jade"}, {"title": 3}]}},
        {"content": b"\xef\xbb\xbf" + b'{"title": "jade"}'},
    ],
)
def test_torchserve_is_sent_json_whatever_comes(
    start_gateway: StartGateway, torchserve: FakeTorchServe, request_: dict[str, Any]
) -> None:
    gateway = start_gateway()
    response = gateway.http.post("/v1/encode", **request_)
    assert response.status_code == 200, response.text
    [asked] = torchserve.asked
    assert asked.headers["content-type"] == "application/json"
    product = orjson.loads(asked.body.removeprefix(b"\xef\xbb\xbf"))
    if "files" in request_:
        image = request_["files"].get("image")
        assert product.get("image") == (image and base64.b64encode(image[1]).decode())
        assert product.get("price") == (7.5 if "data" in request_ else None)


MALFORMED = {
    "no form": b"abc",
    "nothing": b"",
    "no end": part("title", b"jade"),
    "no part": b"--x--",
    "a part without a name": form(b"--x\r\nContent-Disposition: form-data\r\n\r\njade"),
    "a part without a head": form(b"--x\r\n\r\njade"),
    "a name of bytes": form(b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\njade'),
    "an endless name": form(part("n" * 100_000, b"jade")),
    "many parts": form(*(part(f"p{number}", b"a") for number in range(20_000))),
    "an unknown part": form(part("title", b"jade"), part("shelf", b"3")),
    "two titles": form(part("title", b"jade"), part("title", b"ring")),
    "two pictures": form(part("image", b"oops"), part("image", JPEG)),
    "base64": form(part("image", base64.encodebytes(JPEG))),
    "data": form(part("data", JPEG, '; filename="a.jpg"')),
    "a price in words": form(part("title", b"jade"), part("price", b"dear")),
    "a picture of no format": form(part("title", b"jade"), part("image", b"")) + b"\0" * 9,
}


def test_malformed_forms_are_their_senders_alone(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    """More of them than open a breaker: none reaches the model, and it answers the next one."""
    gateway = start_gateway()
    for _ in range(3):
        for name, body in MALFORMED.items():
            response = encode(gateway, body)
            if response.status_code != 200:
                assert 400 <= response.status_code < 500, (name, response.text)
                assert set(response.json()) == {"code", "message", "field"}, name
    assert all(asked.headers["content-type"] == "application/json" for asked in torchserve.asked)
    assert gateway.http.post("/v1/encode", json={"title": "jade"}).status_code == 200
    assert gateway.http.get("/readyz?strict").status_code == 200
    assert 'breaker{model="encoder",version="default"} 0.0' in gateway.http.get("/metrics").text


@pytest.mark.parametrize(
    ("name", "field", "said"),
    [
        ("two titles", "title", "several parts"),
        ("two pictures", "image", "several parts"),
        ("an unknown part", "shelf", "unknown field"),
        ("data", "data", "'image'"),
        ("base64", "image", "base64"),
        ("a price in words", "price", "number"),
        ("no end", None, "form cannot be read"),
    ],
)
def test_a_form_is_told_what_is_wrong_with_it(name: str, field: str | None, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        parse_encode_body(MALFORMED[name], FORM, LIMITS)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "answer",
    [
        status(400, b'{"code": 400, "type": "BadRequestException", "message": "no"}'),
        status(422, b'{"code": "invalid_field", "message": "no", "field": "title"}'),
        status(413, b""),
        status(415, b""),
        status(500, b'{"code": "internal", "message": "one row", "field": null}'),
    ],
)
@pytest.mark.parametrize("path", ["/v1/encode", "/v1/recommend"])
def test_no_request_of_a_client_opens_the_breaker(
    start_gateway: StartGateway, torchserve: FakeTorchServe, answer: Any, path: str
) -> None:
    gateway = start_gateway(breaker_requests=4)
    torchserve.always = answer
    body = {"unit": "u"} if "recommend" in path else {"title": "jade"}
    for _ in range(10):
        gateway.http.post(path, json=body)
    assert len(torchserve.asked) == 10
    assert 'breaker{model="encoder",version="default"} 2.0' not in gateway.http.get("/metrics").text


HEADS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["title", "image", "price", "data", "body", "image[1]", ""]
)
PARTS = st.builds(
    part,
    HEADS,
    st.binary(max_size=60) | st.just(JPEG),
    st.sampled_from(["", '; filename="a"', ";"]),
)
BODIES = st.lists(PARTS | st.binary(max_size=40), max_size=6).map(lambda parts: form(*parts))


@settings(max_examples=300)
@given(
    body=st.binary(max_size=200) | BODIES | BODIES.flatmap(lambda b: st.just(b[: len(b) // 2])),
    content_type=st.just(FORM)
    | st.sampled_from(["multipart/form-data", "multipart/form-data; boundary=", "image/png", ""])
    | st.text(st.characters(max_codepoint=255), max_size=30).map("multipart/form-data; {}".format),
)
@example(body=b"--x\r\n" + b" a\r\n" * 2_000, content_type=FORM)
@example(body=b"\r\n--x" * 50_000, content_type=FORM)
def test_any_form_is_read_or_refused(body: bytes, content_type: str) -> None:
    refused: RequestError | None = None
    try:
        sent = parse_encode_body(body, content_type, LIMITS)
    except RequestError as error:
        refused = error
    if refused is None:
        assert isinstance(orjson.loads(sent.removeprefix(b"\xef\xbb\xbf")), dict)
    else:
        assert 400 <= refused.http_status < 500
        assert len(orjson.dumps(refused.body())) < 1_000


def test_a_request_of_many_pixels_is_refused_before_the_model_is_asked(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    large = io.BytesIO()
    Image.new("1", (6_300, 6_300)).save(large, "PNG")
    image = base64.b64encode(large.getvalue()).decode()
    gateway = start_gateway()
    body = {"instances": [{"image": image}] * 32}
    response = gateway.http.post("/v1/encode", json=body)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert torchserve.asked == []
    assert gateway.http.post("/v1/encode", json={"image": image}).status_code == 200
