"""Every bad input answers its own 4xx, and its batch-mates their 200."""

import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from newshelf.config import Limits
from newshelf.errors import InvalidField, NotJson, TooLarge
from newshelf.serving.products import parse_products, read_json
from newshelf.serving.protocol import RawRequest
from newshelf.serving.requests import parse_recommend
from newshelf.serving.schemas import EncoderProduct, validate

GOOD = {"title": "green jade ring"}
ASK = {"history": ["i00"], "k": 3}


def raw(body: bytes, content_type: str = "application/json", **parts: bytes) -> RawRequest:
    return RawRequest({"body": body, **parts}, content_type)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than its few bytes hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


JPEG = io.BytesIO()
Image.effect_noise((80, 60), 50).convert("RGB").save(JPEG, "JPEG")
JPEG = JPEG.getvalue()
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(range(256))

BAD_FOR_BOTH = {
    "no JSON": (b"{title: ring}", 400, "not_json", None),
    "empty body": (b"", 400, "not_json", None),
    "NaN": (b'{"price": NaN, "title": "a"}', 400, "not_json", None),
    "infinite number": (b'{"price": 1e999, "title": "a"}', 400, "not_json", None),
    "invalid UTF-8": (b'{"title": "\xff"}', 400, "not_json", None),
    "lone surrogate": (b'{"title": "\\ud800"}', 400, "not_json", None),
    "depth bomb": (b"[" * 200_000, 400, "not_json", None),
    "deep but closed": (b'{"title": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "invalid_field", None),
    "UTF-16": ('{"title": "a"}'.encode("utf-16"), 400, "not_json", None),
    "gzip": (
        RawRequest({"body": b"{}"}, "application/json", headers={"content-encoding": "gzip"}),
        415, "unsupported_media", None,
    ),
    "very many fields": (
        json.dumps(dict.fromkeys(map(str, range(300_000)))).encode(), 422, "invalid_field", None,
    ),
    "as many further in": (
        json.dumps({"history": [dict.fromkeys(map(str, range(300_000)))]}).encode(),
        422, "invalid_field", None,
    ),
    "a field with a long name": (
        json.dumps({"x" * 1_000_000: 1}).encode(), 422, "invalid_field", "x" * 200,
    ),
    "an array": (b"[1, 2]", 422, "invalid_field", None),
    "a string": (b'"ring"', 422, "invalid_field", None),
    "null": (b"null", 422, "invalid_field", None),
    "urlencoded": (
        raw(b"", "application/x-www-form-urlencoded"), 415, "unsupported_media", None,
    ),
    "xml": (raw(b"<a/>", "text/xml"), 415, "unsupported_media", None),
    "too many bytes": (b" " * 8_100_000, 413, "too_large", None),
    "query beside JSON": (
        raw(b'{"title": "a"}', title=b"b"), 422, "invalid_field", "title",
    ),
}  # fmt: skip


def product(**fields):
    return fields


def encoder_cases(b64):
    many = [{"title": "a"}] * 65
    return {
        "unknown field": (product(title="a", colour="red"), 422, "invalid_field", "colour"),
        "title a number": (product(title=7), 422, "invalid_field", "title"),
        "price a string": (product(title="a", price="7"), 422, "invalid_field", "price"),
        "price a boolean": (product(title="a", price=True), 422, "invalid_field", "price"),
        "price negative": (product(title="a", price=-1), 422, "invalid_field", "price"),
        "nothing to encode": (product(color="red"), 422, "invalid_field", None),
        "blank title": (product(title="  "), 422, "invalid_field", None),
        "bad base64": (product(image="@@@@"), 422, "invalid_field", "image"),
        "cut base64": (product(image="abcde"), 422, "invalid_field", "image"),
        "empty image": (product(image=""), 422, "bad_picture", "image"),
        "a URL": (product(image="https://example.org/a.jpg"), 422, "invalid_field", "image"),
        "not a picture": (product(image=b64(b"hello world")), 422, "bad_picture", "image"),
        "truncated JPEG": (product(image=b64(JPEG[:400])), 422, "bad_picture", "image"),
        "damaged PNG": (product(image=b64(bomb(20, 20))), 422, "bad_picture", "image"),
        "TIFF": (product(image=b64(b"II*\x00" + bytes(99))), 422, "bad_picture", "image"),
        "bomb": (product(image=b64(bomb(30_000, 30_000))), 413, "too_large", "image"),
        "just above the cap": (product(image=b64(bomb(1001, 1000))), 413, "too_large", "image"),
        "picture of many bytes": (product(image="A" * 700_000), 413, "too_large", "image"),
        "bare 0-byte file": (raw(b"", "image/jpeg"), 422, "bad_picture", "image"),
        "bare text as JPEG": (raw(b"hello", "image/jpeg"), 422, "bad_picture", "image"),
        "bare many bytes": (raw(bytes(500_000), "image/png"), 413, "too_large", "image"),
        "query beside it": (raw(JPEG, "image/jpeg", title=b"b"), 422, "invalid_field", "title"),
        "bare SVG": (raw(b"<svg/>", "image/svg+xml"), 415, "unsupported_media", None),
        "AVIF as bytes": (raw(AVIF, "application/octet-stream"), 422, "bad_picture", "image"),
        "AVIF without a type": (raw(AVIF, ""), 422, "bad_picture", "image"),
        "AVIF as JPEG": (raw(AVIF, "image/jpeg"), 422, "bad_picture", "image"),
        "HTML as bytes": (raw(b"<html>404", ""), 422, "bad_picture", "image"),
        "form with a bad price": (
            RawRequest({"title": b"a", "price": b"dear"}, "multipart/form-data"),
            422, "invalid_field", "price",
        ),
        "form with an infinite price": (
            RawRequest({"title": b"a", "price": b"inf"}, "multipart/form-data"),
            422, "invalid_field", "price",
        ),
        "form with bytes as title": (
            RawRequest({"title": b"\xff\xfe"}, "multipart/form-data"),
            422, "invalid_field", "title",
        ),
        "form with an unknown field": (
            RawRequest({"title": b"a", "shelf": b"3"}, "multipart/form-data"),
            422, "invalid_field", "shelf",
        ),
        "form without boundary": (raw(b"", "multipart/form-data"), 400, "bad_request", None),
        "form with a field called body": (
            RawRequest({"body": b"a"}, "multipart/form-data; boundary=x"),
            422, "invalid_field", "body",
        ),
        "form with two titles": (
            RawRequest({"title": b"a", "title[1]": b"b"}, "multipart/form-data"),
            422, "invalid_field", "title",
        ),
        "form with two pictures": (
            RawRequest({"image": JPEG, "image[1]": JPEG}, "multipart/form-data"),
            422, "invalid_field", "image",
        ),
        "form with a picture called data": (
            RawRequest({"data": JPEG}, "multipart/form-data"), 422, "invalid_field", "data",
        ),
        "form with a picture of another name": (
            RawRequest({"title": b"a", "front": JPEG}, "multipart/form-data"),
            422, "invalid_field", "front",
        ),
        "form with a picture in base64": (
            RawRequest({"image": b64(JPEG).encode()}, "multipart/form-data"),
            422, "invalid_field", "image",
        ),
        "bare picture in base64": (
            raw(b64(JPEG).encode(), "image/jpeg"), 422, "invalid_field", "image",
        ),
        "empty form": (RawRequest({}, "multipart/form-data"), 422, "invalid_field", None),
        "form with an empty image": (
            RawRequest({"image": b""}, "multipart/form-data"), 422, "bad_picture", "image",
        ),
        "100,000 characters": (product(title="x" * 100_000), 413, "too_large", "title"),
        "no instances": (product(instances=[]), 422, "invalid_field", "instances"),
        "instances an object": (product(instances={}), 422, "invalid_field", "instances"),
        "too many instances": (product(instances=many), 413, "too_large", "instances"),
        "instances and more": (
            product(instances=[{"title": "a"}], k=3), 422, "invalid_field", "k",
        ),
        "instance no object": (product(instances=[3]), 422, "invalid_field", "instances[0]"),
    }  # fmt: skip


def recommender_cases(b64):
    jade = {"title": "green jade ring"}
    return {
        "unknown field": ({"histroy": []}, 422, "invalid_field", "histroy"),
        "history a string": ({"history": "i00"}, 422, "invalid_field", "history"),
        "a number as reference": ({"history": [7]}, 422, "invalid_field", "history[0]"),
        "empty id": ({"history": [""]}, 422, "invalid_field", "history[0]"),
        "price in an inline product": (
            {"history": ["i00", "i01", {**jade, "price": "7"}]},
            422, "invalid_field", "history[2].price",
        ),
        "inline product without content": (
            {"history": [{"color": "red"}]}, 422, "invalid_field", "history[0]",
        ),
        "inline picture": (
            {"history": [{"image": b64(b"hello")}]}, 422, "bad_picture", "history[0].image",
        ),
        "inline text": (
            {"candidates": [{"id": "n", "title": "x" * 100_000}]},
            413, "too_large", "candidates[0].title",
        ),
        "inline candidate without id": (
            {"candidates": [jade]}, 422, "invalid_field", "candidates[0].id",
        ),
        "k of 0": ({"k": 0}, 422, "invalid_field", "k"),
        "k of -1": ({"k": -1}, 422, "invalid_field", "k"),
        "k of 10^9": ({"k": 10**9}, 422, "invalid_field", "k"),
        "k of 10^30": ({"k": 10**30}, 422, "invalid_field", "k"),
        "k of 2.5": ({"k": 2.5}, 422, "invalid_field", "k"),
        "k a boolean": ({"k": True}, 422, "invalid_field", "k"),
        "10,000 candidates": (
            {"candidates": [f"c{n}" for n in range(10_000)]}, 413, "too_large", "candidates",
        ),
        "201 in history": ({"history": ["i00"] * 201}, 413, "too_large", "history"),
        "65 inline products": ({"history": [jade] * 65}, 413, "too_large", None),
        "no candidates": ({"candidates": []}, 422, "invalid_field", "candidates"),
        "only unknown candidates": (
            {"candidates": ["nope", "nor-this"]}, 404, "unknown_item", "candidates",
        ),
        "diversity of 2": ({"diversity": 2}, 422, "invalid_field", "diversity"),
        "unknown filter": (
            {"filters": {"colour": "red"}}, 422, "invalid_field", "filters.colour",
        ),
        "filter a number": ({"filters": {"color": 3}}, 422, "invalid_field", "filters.color"),
        "filter an empty list": (
            {"filters": {"color": []}}, 422, "invalid_field", "filters.color",
        ),
        "unknown availability": (
            {"filters": {"availability": "gone"}},
            422, "invalid_field", "filters.availability[0]",
        ),
        "price range upside down": (
            {"filters": {"price": {"min": 9, "max": 3}}}, 422, "invalid_field", "filters.price",
        ),
        "created_after a date": (
            {"filters": {"created_after": "2024-01-01"}},
            422, "invalid_field", "filters.created_after",
        ),
        "exclude a string": ({"exclude": "i00"}, 422, "invalid_field", "exclude"),
        "a picture": (raw(JPEG, "image/jpeg"), 415, "unsupported_media", None),
        "a form": (
            RawRequest({"history": b"i00"}, "multipart/form-data"),
            415, "unsupported_media", None,
        ),
    }  # fmt: skip


def check(predictor, post, good, cases) -> None:
    """Each case stands between two good rows in one batch with all the others."""
    names = list(cases)
    bodies = [body for name in names for body in (good, cases[name][0])] + [good]
    answers = post(predictor, *bodies)
    for name, (status, answer) in zip(names, answers[1::2], strict=True):
        _, wanted_status, code, field = cases[name]
        assert (status, answer.get("code")) == (wanted_status, code), f"{name}: {answer}"
        assert set(answer) == {"code", "message", "field"}, name
        assert field is None or answer["field"] == field, f"{name}: {answer}"
        assert 10 < len(answer["message"]) < 300, f"{name}: {answer}"
        assert len(answer["field"] or "") <= 200, name
    assert [status for status, _ in answers[0::2]] == [200] * (len(names) + 1)


def test_the_encoder_refuses_bad_input_row_by_row(encoder_predictor, post, b64):
    check(encoder_predictor, post, GOOD, {**BAD_FOR_BOTH, **encoder_cases(b64)})


def test_the_recommender_refuses_bad_input_row_by_row(recommender, post, b64):
    check(recommender, post, ASK, {**BAD_FOR_BOTH, **recommender_cases(b64)})


def test_unknown_fields_are_told_the_likely_name(recommender, post):
    [(_, answer), (_, misplaced)] = post(recommender, {"histroy": []}, {"title": "jade ring"})
    assert "did you mean 'history'?" in answer["message"]
    assert "'title'" in misplaced["message"]


def test_types_are_told_in_json_terms(recommender, post):
    [(_, answer)] = post(recommender, {"k": "ten", "history": None})
    assert "not null" in answer["message"]
    assert "(and 1 more)" in answer["message"]


def test_duplicate_keys_are_tolerated(encoder_predictor, post):
    answers = post(encoder_predictor, b'{"title": "a", "title": "ring"}', {"title": "ring"})
    assert answers[0] == answers[1]


def test_base64_may_have_line_breaks_or_a_data_prefix(encoder_predictor, post, picture, b64):
    digits = b64(picture())
    broken = "\n".join(digits[at : at + 76] for at in range(0, len(digits), 76))
    bodies = [{"image": text} for text in (digits, broken, f"data:image/png;base64,{digits}")]
    answers = post(encoder_predictor, *bodies)
    assert [status for status, _ in answers] == [200] * 3
    for _, answer in answers[1:]:
        np.testing.assert_allclose(answer["embedding"], answers[0][1]["embedding"], atol=1e-6)


@pytest.mark.parametrize("name", ["CMYK", "16-bit", "animated", "palette", "alpha", "1x1", "grey"])
def test_unusual_pictures_are_handled(encoder_predictor, post, picture, name):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    deep = io.BytesIO()
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(deep, "PNG")
    data = {
        "CMYK": picture("JPEG", mode="CMYK"),
        "16-bit": deep.getvalue(),
        "animated": animated.getvalue(),
        "palette": picture(mode="P"),
        "alpha": picture(mode="RGBA"),
        "1x1": picture(size=(1, 1)),
        "grey": picture(mode="L"),
    }[name]
    [(status, answer)] = post(encoder_predictor, RawRequest({"body": data}, ""))
    assert status == 200, answer


def test_exif_rotation_is_applied(encoder_predictor, post, picture):
    upright = Image.open(io.BytesIO(picture()))
    exif = Image.Exif()
    exif[0x0112] = 8  # shown after a quarter turn to the left
    turned = io.BytesIO()
    upright.rotate(-90, expand=True).save(turned, "PNG", exif=exif)
    rows = [RawRequest({"body": data}, "image/png") for data in (picture(), turned.getvalue())]
    answers = post(encoder_predictor, *rows)
    np.testing.assert_allclose(answers[0][1]["embedding"], answers[1][1]["embedding"], atol=1e-5)


def test_a_defect_of_the_decoder_is_a_bad_picture(encoder_predictor, post, monkeypatch, b64):
    def broken(*_args, **_options):
        raise ZeroDivisionError("in a codec")

    monkeypatch.setattr("newshelf.serving.preprocess.prepare_picture", broken)
    answers = post(encoder_predictor, {"image": b64(JPEG)}, GOOD)
    assert [status for status, _ in answers] == [422, 200]
    assert answers[0][1]["code"] == "bad_picture"


def test_no_answer_holds_nan(encoder_predictor, post):
    """JSON has no NaN; ours would be read as null by a client."""
    [(_, answer)] = post(encoder_predictor, GOOD)
    json.dumps(answer, allow_nan=False)
    assert None not in answer["embedding"]


@pytest.mark.parametrize(
    ("encoding", "content_type", "said"),
    [
        ("latin-1", "application/json", "0xfc, as in ISO-8859-1"),
        ("latin-1", "application/json; charset=ISO-8859-1", "in ISO-8859-1"),
        ("gbk", 'application/json; charset="GBK"', "in GBK"),
        ("utf-16", "application/json", "in UTF-16"),
        ("utf-16-le", "application/json", "in UTF-16"),
        ("utf-32-be", "", "in UTF-32"),
    ],
)
def test_json_in_another_charset_is_told_its_name(encoding, content_type, said):
    body = '{"title": "grün"}'.encode(encoding)
    with pytest.raises(NotJson, match=said):
        read_json(body, content_type)


def test_a_byte_order_mark_and_charsets_that_change_nothing_are_fine():
    for body, content_type in (
        ("\ufeff{}".encode(), "application/json"),
        (b"{}", "application/json; charset=ISO-8859-1"),
        ('{"title": "grün"}'.encode(), "application/json; charset=UTF-8"),
    ):
        assert isinstance(read_json(body, content_type), dict)


@pytest.mark.parametrize("deepest", range(5))
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_an_object_of_too_many_fields_is_refused_without_looking_at_each(wrap, deepest):
    """As deep as the schemas go; what is nested deeper is refused for that."""
    value = dict.fromkeys(map(str, range(101)))
    for _ in range(deepest):
        value = wrap(value)
    with pytest.raises(InvalidField) as refused:
        validate(EncoderProduct, {"title": value} if deepest else value)
    assert ("101 fields" in refused.value.message) == (deepest <= 2)
    fewer = dict.fromkeys(map(str, range(100)))
    with pytest.raises(InvalidField, match="unknown field"):
        validate(EncoderProduct, fewer)


def png(side: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (side, side)).save(data, "PNG")
    return data.getvalue()


def test_the_pictures_of_a_request_share_a_budget_of_pixels(b64, monkeypatch):
    """Judged by their headers: not one is decoded."""
    limits = Limits(max_pixels=10_000, max_request_pixels=20_000)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    small, large = {"image": b64(png(80))}, {"image": b64(png(101))}

    def to_encoder(products):
        body = json.dumps({"instances": products}).encode()
        return parse_products(raw(body), limits)[0]

    def to_recommender(products):
        body = json.dumps({"history": products[:1], "candidates": products[1:]}).encode()
        return parse_recommend(raw(body), limits).inline

    numbered = [{**small, "id": str(number)} for number in range(4)]
    for ask in (to_encoder, to_recommender):
        assert len(ask(numbered[:3])) == 3
        with pytest.raises(TooLarge, match="25600 pixels together"):
            ask(numbered)
    # One that is too large by itself is not decoded, and has an error of its own.
    assert len(to_encoder([small, large, large, small])) == 4
