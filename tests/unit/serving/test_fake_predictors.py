"""The fakes answer in the real ones' shapes, and refuse what those refuse."""

import json
import subprocess
import sys

import pytest

from newshelf.serving.protocol import TIMEOUT_HEADER, RawRequest, predict_isolated
from newshelf.serving.schemas import EncoderAnswer, ErrorBody, InstancesAnswer
from tests.fake_predictors import FakeEncoderPredictor, FakeRecommenderPredictor, RecommendAnswer

REQUESTS = [
    {"title": "ring"},
    {"instances": [{"title": "ring"}, {"title": 3}]},
    {"instances": [{"title": 3}]},
    {"color": "red"},
    {"titel": "ring"},
]
ASKED = [
    {"history": ["item-001"], "k": 3, "explain": True},
    {"history": ["gone"], "k": 3},
    {"history": [], "candidates": ["lost"]},
    {"k": 0},
    {"candidates": [{"id": "n", "title": "ring"}, "item-002"], "exclude": ["item-002"]},
]


def test_fakes_are_deterministic(post):
    for fake, bodies in ((FakeEncoderPredictor, REQUESTS), (FakeRecommenderPredictor, ASKED)):
        assert post(fake(), *bodies) == post(fake(), *bodies)


def test_the_fake_encoder_has_the_real_ones_shapes(post, encoder_predictor):
    fakes = post(FakeEncoderPredictor(), *REQUESTS)
    reals = post(encoder_predictor, *REQUESTS)
    for (status, fake), (real_status, real) in zip(fakes, reals, strict=True):
        assert status == real_status
        assert set(fake) == set(real)
    for _, answer in (fakes[0], reals[0]):
        assert len(EncoderAnswer.model_validate(answer).embedding) == 512
    for _, answer in (fakes[1], reals[1]):
        InstancesAnswer.model_validate(answer)
    for _, answer in (fakes[4], reals[4]):
        assert ErrorBody.model_validate(answer).field == "titel"


def test_the_fake_recommender_has_the_real_ones_shapes(post, recommender):
    fakes = post(FakeRecommenderPredictor(), *ASKED)
    assert [status for status, _ in fakes] == [200, 200, 404, 422, 200]
    first = RecommendAnswer.model_validate(fakes[0][1])
    assert len(first.items) == 3
    assert "item-001" not in [item.id for item in first.items]
    assert {item.source for item in first.items} == {"model"}
    assert fakes[1][1]["ignored"] == ["gone"]
    assert [item["id"] for item in fakes[4][1]["items"]] == ["n"]
    [(_, real)] = post(recommender, {"history": ["i00", "gone"], "k": 3, "explain": True})
    RecommendAnswer.model_validate(real)


def test_different_histories_get_different_answers(post):
    bodies = [{"history": [item]} for item in ("item-001", "item-002")]
    answers = [answer["items"] for _, answer in post(FakeRecommenderPredictor(), *bodies)]
    assert answers[0] != answers[1]


def test_the_front_end_can_use_schemas_and_fakes_without_torch():
    code = (
        "import sys, tests.fake_predictors, newshelf.serving.schemas, newshelf.serving.protocol\n"
        "print([name for name in ('torch', 'pandas', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Fragile:
    """Raises whenever a body holds ``boom``, as a defect would."""

    def __init__(self) -> None:
        self.inner = FakeEncoderPredictor()

    def predict(self, rows):
        if any(b"boom" in row.parts["body"] for row in rows):
            raise RuntimeError("CUDA out of memory")
        return self.inner.predict(rows)


def test_a_defect_costs_only_its_own_row(caplog):
    rows = [
        RawRequest({"body": json.dumps({"title": title}).encode()}, "application/json", f"r{at}")
        for at, title in enumerate(["a", "boom", "c"])
    ]
    errors: list[str] = []
    answers = predict_isolated(Fragile(), rows, lambda: errors.append("again"))
    # Of the batch, and of the row.
    assert len(errors) == 2
    assert [answer.status for answer in answers] == [200, 500, 200]
    told = json.loads(answers[1].body)
    assert told["code"] == "internal"
    assert "'r1'" in told["message"]
    # TorchServe would take the word for a device that ran out of memory.
    assert b"CUDA" not in answers[1].body
    assert "RuntimeError: CUDA out of memory" in caplog.text
    assert "r0, r1, r2" in caplog.text


def test_a_wrong_number_of_answers_is_a_defect_too():
    class Short:
        def predict(self, rows):
            return FakeEncoderPredictor().predict(rows)[1:]

    row = RawRequest({"body": b'{"title": "a"}'}, "application/json", "r0")
    assert [answer.status for answer in predict_isolated(Short(), [row, row])] == [500, 500]


@pytest.mark.parametrize(
    ("headers", "content_type", "deadline"),
    [
        ({"Content-Type": "application/json"}, "application/json", None),
        ({"content-type": "image/png", "X-Newshelf-Timeout-Ms": "12"}, "image/png", "12"),
        ({"body": {"content-type": "image/png"}}, "", None),
    ],
)
def test_requests_are_built_from_a_servers_parts(headers, content_type, deadline):
    request = RawRequest.from_http({"body": b"{}"}, headers, "r7")
    assert (request.content_type, request.headers.get(TIMEOUT_HEADER)) == (content_type, deadline)
    assert request.request_id == "r7"


def test_parts_that_a_server_has_decoded_are_bytes_again():
    parts = {"body": {"title": "a"}, "title": "Grün", "image": bytearray(b"x")}
    request = RawRequest.from_http(parts, {}, "")
    assert dict(request.parts) == {
        "body": b'{"title":"a"}', "title": "Grün".encode(), "image": b"x",
    }  # fmt: skip
