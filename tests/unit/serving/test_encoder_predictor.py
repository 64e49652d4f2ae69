import time

import numpy as np
import pytest
import torch

from newshelf.catalog.schema import Product
from newshelf.config import Limits
from newshelf.errors import DeadlineExceeded
from newshelf.nn.inputs import attribute_row, decode_picture, prepare_pictures
from newshelf.serving.protocol import (
    SENT_HEADER,
    TIMEOUT_HEADER,
    RawRequest,
    check_deadline,
    sent_now,
)
from newshelf.serving.schemas import EncoderAnswer

JADE = {"title": "green jade ring", "material": "jade", "price": 12}


def test_a_product_gets_a_unit_embedding_labels_and_the_version(encoder_predictor, post):
    [(status, answer)] = post(encoder_predictor, JADE)
    assert status == 200
    assert set(answer) == {"embedding", "labels", "model_version"}
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-5)
    assert len(answer["embedding"]) == 512
    assert set(answer["labels"]) == {"color", "material"}
    assert answer["labels"]["color"]["value"] in {"green", "red"}
    assert 0.5 <= answer["labels"]["color"]["score"] <= 1
    assert answer["model_version"] == "0123456789ab"


def test_the_answer_is_what_the_eager_encoder_computes(
    encoder_predictor, encoder, spec, post, picture, b64
):
    """Picture, text and attributes go to the right rows when others lack them."""
    pixels = picture()
    bodies = [{"image": b64(pixels)}, JADE, {**JADE, "image": b64(pixels), "color": "red"}]
    embeddings = [answer["embedding"] for _, answer in post(encoder_predictor, *bodies)]

    square = decode_picture(pixels, spec.encoder.image)
    image = torch.from_numpy(prepare_pictures([square] * 2, spec.encoder.image))
    ids = torch.tensor([[2, 10, 4, 7, 3]] * 2)  # [CLS] green jade ring [SEP]
    products = [Product(**fields) for fields in ({}, JADE, {**JADE, "color": "red"})]
    rows = torch.tensor([attribute_row(item, spec.encoder.attributes) for item in products])
    with torch.inference_mode():
        wanted = encoder(
            image, torch.tensor([0, 2]), ids, torch.ones_like(ids), torch.tensor([1, 2]), rows
        )[0]
    np.testing.assert_allclose(embeddings, wanted.numpy(), atol=1e-5)


def test_batch_mates_do_not_change_an_answer(encoder_predictor, post, picture, b64):
    bodies = [JADE, {"image": b64(picture())}, {"title": "a lamp"}, {"description": "red shirt"}]
    together = [answer["embedding"] for _, answer in post(encoder_predictor, *bodies)]
    alone = [post(encoder_predictor, body)[0][1]["embedding"] for body in bodies]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_instances_answer_in_order_over_several_forwards(encoder_predictor, post):
    titles = [f"{color} {thing}" for color in ("red", "green") for thing in ("ring", "lamp", "a")]
    body = {"instances": [{"title": title} for title in titles]}
    [(status, answer)] = post(encoder_predictor, body)
    assert status == 200
    assert answer["model_version"] == "0123456789ab"
    alone = [post(encoder_predictor, {"title": title})[0][1]["embedding"] for title in titles]
    found = [prediction["embedding"] for prediction in answer["predictions"]]
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_bad_instance_has_an_error_in_its_place(encoder_predictor, post):
    body = {"instances": [JADE, {"title": 3}, {"image": "!!"}, {"color": "red"}]}
    [(status, answer)] = post(encoder_predictor, body)
    assert status == 200
    assert "embedding" in answer["predictions"][0]
    errors = [prediction["error"] for prediction in answer["predictions"][1:]]
    assert [(error["status"], error["code"], error["field"]) for error in errors] == [
        (422, "invalid_field", "instances[1].title"),
        (422, "invalid_field", "instances[2].image"),
        (422, "invalid_field", "instances[3]"),
    ]


def test_when_no_instance_is_good_the_request_answers_as_the_first(encoder_predictor, post):
    body = {"instances": [{"title": "x" * 10_001}, {"title": 3}]}
    [(status, answer)] = post(encoder_predictor, body)
    assert (status, answer["code"], answer["field"]) == (413, "too_large", "instances[0].title")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_bare_picture_is_a_product(encoder_predictor, post, picture, b64, kind):
    data = picture(kind)
    bare = RawRequest({"body": data}, f"image/{kind.lower()}")
    untyped = RawRequest({"body": bytearray(data)}, "")
    answers = post(encoder_predictor, bare, untyped, {"image": b64(data)})
    assert [status for status, _ in answers] == [200] * 3
    embeddings = [answer["embedding"] for _, answer in answers]
    np.testing.assert_allclose(embeddings[0], embeddings[1], atol=1e-6)
    np.testing.assert_allclose(embeddings[0], embeddings[2], atol=1e-6)


def test_a_form_is_a_product(encoder_predictor, post, picture, b64):
    data = picture()
    parts = {"image": data, "title": b"green jade ring", "material": b"jade", "price": b"12.0"}
    form = RawRequest(parts, "multipart/form-data; boundary=x")
    answers = post(encoder_predictor, form, {**JADE, "image": b64(data)})
    np.testing.assert_allclose(answers[0][1]["embedding"], answers[1][1]["embedding"], atol=1e-6)


def test_a_bare_picture_is_a_product_with_nothing_else(encoder_predictor, post, picture, b64):
    bare = RawRequest({"body": picture()}, "image/png")
    answers = post(encoder_predictor, bare, {"image": b64(picture())})
    np.testing.assert_allclose(answers[0][1]["embedding"], answers[1][1]["embedding"], atol=1e-6)


def test_a_request_past_its_deadline_answers_504(encoder_predictor, post):
    rows = [
        RawRequest({"body": b'{"title": "a"}'}, "application/json", "", {TIMEOUT_HEADER: text})
        for text in ("0", "600000", "soon", "9" * 400, "-" + "9" * 400)
    ]
    answers = post(encoder_predictor, *rows)
    assert [status for status, _ in answers] == [504, 200, 422, 422, 422]
    assert answers[0][1]["code"] == "deadline_exceeded"
    assert {answer["field"] for _, answer in answers[2:]} == {TIMEOUT_HEADER}


def test_a_request_that_names_no_time_has_the_settings(encoder_predictor, post):
    waited_s = Limits().timeout_ms / 1000
    late = RawRequest(
        {"body": b'{"title": "a"}'}, arrived_s=time.monotonic() - waited_s, request_id="r"
    )
    [(status, answer)] = post(encoder_predictor, late)
    assert (status, answer["code"]) == (504, "deadline_exceeded")


def test_what_a_request_waits_within_one_machine_counts():
    sent = {TIMEOUT_HEADER: "500", SENT_HEADER: sent_now()}
    arrived_s = time.monotonic() + 0.4
    for headers, left_s in ((sent, 0.1), ({TIMEOUT_HEADER: "500"}, 0.5)):
        deadline_s = check_deadline(RawRequest({}, headers=headers, arrived_s=arrived_s), 10_000)
        assert deadline_s - arrived_s == pytest.approx(left_s, abs=0.05)
    # Another machine's clock says nothing here.
    foreign = {**sent, SENT_HEADER: "elsewhere 12"}
    assert check_deadline(RawRequest({}, headers=foreign), 10_000) > time.monotonic()


def test_every_stage_and_the_batch_size_are_observed(encoder_predictor, recorder, post):
    recorder.drain()
    new = {**JADE, "title": "a lamp of linen and gold"}
    post(encoder_predictor, new, {**new, "price": 99.0})
    measured = {metric.name: value for metric, value in recorder.drain()}
    assert measured.pop("newshelf_batch_size") == 2
    assert measured.pop("newshelf_embedding_cache_misses_total") == 2
    assert set(measured) == {
        f"newshelf_{stage}_seconds"
        for stage in ("parse", "decode", "preprocess", "inference", "postprocess")
    }
    assert all(value > 0 for value in measured.values())
    post(encoder_predictor, new, JADE)
    counts = {metric.name: value for metric, value in recorder.drain()}
    assert counts["newshelf_embedding_cache_hits_total"] >= 1


def test_instances_whose_deadline_passes_on_the_way_answer_504(
    encoder_predictor, post, monkeypatch
):
    monkeypatch.setattr("newshelf.serving.encode.refuse_late", _late)
    body = {"instances": [{**JADE, "color": "gold"}, {"title": 3}]}
    [(status, answer)] = post(encoder_predictor, body)
    assert (status, answer["code"]) == (504, "deadline_exceeded")


def _late(_deadline_s):
    raise DeadlineExceeded("the deadline passed 3 ms before the request's turn")


@pytest.mark.parametrize(
    "marked_up",
    [
        {"title": "green <b>jade</b> ring", "material": "<i>jade</i>", "price": 12},
        {"title": "green&nbsp;jade ring<!-- red -->", "material": "&#106;ade", "price": 12},
        {
            "description": "<p style='color:red'>green jade ring</p>",
            "material": "jade",
            "price": 12,
        },
    ],
)
def test_markup_does_not_change_an_embedding(encoder_predictor, post, marked_up):
    [(_, dirty), (_, clean)] = post(encoder_predictor, marked_up, JADE)
    assert dirty["embedding"] == clean["embedding"]


def test_a_product_of_markup_alone_has_nothing_to_encode(encoder_predictor, post):
    [(status, answer), (good, _)] = post(encoder_predictor, {"title": "<p> </p>"}, JADE)
    assert (status, good) == (422, 200)
    assert "needs a title" in answer["message"]


def test_an_answer_says_that_a_text_could_not_be_read(encoder_predictor, post, picture, b64):
    thai = {"title": "\u0e41\u0e2b\u0e27\u0e19"}
    image = {"image": b64(picture())}
    answers = post(encoder_predictor, {**thai, **image}, image, thai, {**thai, "brand": "Corvo"})
    (_, pictured), (_, plain), (status, refused), (_, branded) = answers
    assert pictured["embedding"] == pytest.approx(plain["embedding"], abs=1e-5)
    for answer in (pictured, branded):
        [warning] = EncoderAnswer.model_validate(answer).warnings
        assert "text" in warning
    assert "warnings" not in plain
    assert status == 422
    assert "text tower" in refused["message"]
