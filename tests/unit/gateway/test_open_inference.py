"""The Open Inference Protocol: the answers of /v1 in tensors, and errors with the input's name."""

from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf import __version__
from newshelf.errors import RequestError
from newshelf.gateway.open_inference import read_inference
from newshelf.serving.schemas import EncoderProduct, RecommendRequest
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

ENCODER, RECOMMENDER = "/v2/models/encoder", "/v2/models/recommender"
DATATYPES = {str: "BYTES", int: "INT64", float: "FP32"}


def tensor(name: str, *data: Any, **other: Any) -> dict[str, Any]:
    """A sound tensor, but for what is given otherwise."""
    datatype = DATATYPES.get(type(data[0]) if data else str, "BYTES")
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": [*data], **other}


def infer(gateway: Gateway, model: str, *inputs: Any, **other: Any) -> httpx.Response:
    return gateway.http.post(f"{model}/infer", json={"inputs": [*inputs], **other})


def outputs(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {one["name"]: one for one in response.json()["outputs"]}


@pytest.mark.parametrize(
    "body",
    [
        {"unit": "shopper-7", "history": ["item-003", "item-009"], "k": 4},
        {"unit": "shopper-7", "candidates": ["item-002", "item-003", "unknown"]},
        {"unit": "shopper-7", "kind": "similar", "items": ["item-001"], "exclude": ["item-004"]},
        {
            "unit": "shopper-7",
            "history": ["item-003"],
            "filters": {"color": "red"},
            "explain": True,
        },
    ],
)
def test_it_ranks_and_records_as_v1(start_gateway: StartGateway, body: dict[str, Any]) -> None:
    gateway = start_gateway()
    expected = gateway.http.post("/v1/recommend", json=body).json()["items"]
    inputs = [tensor(name, *value) if isinstance(value, list) else tensor(name, value)
              for name, value in body.items()]  # fmt: skip
    if "filters" in body:
        inputs = [tensor("request", orjson.dumps(body).decode())]
    response = infer(gateway, RECOMMENDER, *inputs, id="mine", parameters={"a": 1})
    found = outputs(response)
    assert found["item_id"]["data"] == [item["id"] for item in expected]
    assert found["score"]["data"] == [item["score"] for item in expected]
    assert (found["item_id"]["datatype"], found["score"]["datatype"]) == ("BYTES", "FP32")
    assert found["score"]["shape"] == [len(expected)]
    answer = response.json()
    assert (answer["model_name"], answer["id"]) == ("recommender", "mine")
    assert answer["parameters"]["source"] == "model"
    first, second = gateway.exposures()
    assert second.request_id == answer["parameters"]["request_id"]
    assert (second.unit, second.kind) == (first.unit, first.kind)
    assert [item.item_id for item in second.items] == [item.item_id for item in first.items]


def test_rows_of_tensors_are_products(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    response = infer(
        gateway,
        ENCODER,
        tensor("title", "jade ring", ""),
        tensor("description", "", "of oak"),
        tensor("price", 3.5, 7),
    )
    embedding = outputs(response)["embedding"]
    assert embedding["shape"] == [2, 512]
    alone = [
        gateway.http.post("/v1/encode", json=product).json()["embedding"]
        for product in ({"title": "jade ring", "price": 3.5}, {"description": "of oak", "price": 7})
    ]
    np.testing.assert_array_equal(np.reshape(embedding["data"], embedding["shape"]), alone)
    assert response.json()["model_version"] == "default00000"
    assert "id" not in response.json()
    assert gateway.exposures() == []


MALFORMED = [
    (RECOMMENDER, [tensor("unit", "u", datatype="STRING")], "inputs[0].datatype"),
    (RECOMMENDER, [tensor("unit", "u", datatype="INT64")], "inputs[0]"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("k", 3, shape=[2])], "inputs[1]"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("k", 3, shape=[1, 1])], "inputs[1].shape"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("k", True, datatype="INT32")], "inputs[1]"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("history", None)], "inputs[1]"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("history", {"title": "x"})], "inputs[1]"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("history", ["item-001"])], "inputs[1]"),
    (RECOMMENDER, [tensor("unit", "u", "v")], "unit"),
    (RECOMMENDER, [tensor("unit")], "unit"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("unit", "u")], "inputs"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("histroy", "item-001")], "histroy"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("k", "3")], "k"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("k", 101)], "k"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("history", "item-001", "")], "history[1]"),
    (RECOMMENDER, [tensor("k", 3)], "unit"),
    (RECOMMENDER, [tensor("unit", "u"), tensor("request", "{}")], "request"),
    (RECOMMENDER, [tensor("request", "{")], None),
    (RECOMMENDER, [], "inputs"),
    (RECOMMENDER, [{"name": "unit", "datatype": "BYTES", "shape": [1]}], "inputs[0].data"),
    (ENCODER, [tensor("title", "a", "b"), tensor("brand", "c")], "inputs"),
    (ENCODER, [tensor("titel", "a")], "instances[0].titel"),
    (ENCODER, [tensor("title", "a", ""), tensor("size", "b", "c")], "instances[1]"),
    (ENCODER, [tensor("title", "a", "b"), tensor("image", "", "%")], "instances[1].image"),
    (ENCODER, [tensor("title")], "instances"),
]  # fmt: skip


def test_malformed_tensors_are_refused_with_their_field(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    for model, inputs, field in MALFORMED:
        response = infer(gateway, model, *inputs)
        said = response.json()
        assert 400 <= response.status_code < 500, (inputs, response.text)
        assert said["field"] == field, (inputs, said)
        assert said["error"] == (f"{field}: {said['message']}" if field else said["message"])
    assert gateway.exposures() == []
    assert gateway.http.get("/v2/health/ready").json() == {"ready": True}
    assert outputs(infer(gateway, RECOMMENDER, tensor("unit", "u")))["item_id"]["shape"] == [10]


def test_every_error_has_the_protocols_field(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway(max_body_bytes=1_000)
    sound = tensor("title", "jade")
    no_key = httpx.post(f"{gateway.url}{ENCODER}/infer", json={}, trust_env=False)
    headers = {"inference-header-content-length": "9"}
    torchserve.behaviours = [status(503)]
    answers = {
        401: no_key,
        503: infer(gateway, ENCODER, sound),
        404: gateway.http.get(f"{ENCODER}/versions/1"),
        413: infer(gateway, ENCODER, tensor("title", "x" * 1_000)),
        415: gateway.http.post(f"{ENCODER}/infer", content=b"{}jade", headers=headers),
        422: infer(gateway, RECOMMENDER, tensor("unit", "u"), tensor("k", 0)),
    }
    for code, response in answers.items():
        assert response.status_code == code
        assert response.json()["error"].endswith(response.json()["message"])
    chinese = gateway.http.post(
        f"{RECOMMENDER}/infer",
        json={"inputs": [tensor("unit", "u"), tensor("k", 0)]},
        headers={"Accept-Language": "zh"},
    )
    assert chinese.json()["message"] != answers[422].json()["message"]


def test_a_model_that_is_away_is_not_ready(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.always = status(503)
    gateway = start_gateway()
    for path in ("/v2/health/ready", f"{ENCODER}/ready", f"{RECOMMENDER}/ready"):
        response = httpx.get(gateway.url + path, trust_env=False)
        assert (response.status_code, "error" in response.json()) == (503, True)
    assert gateway.http.get("/v2/health/live").json() == {"live": True}
    answer = infer(gateway, RECOMMENDER, tensor("unit", "u"), tensor("k", 3))
    assert outputs(answer)["item_id"]["shape"] == [3]
    assert answer.json()["parameters"]["source"] == "fallback"


def test_the_metadata_names_what_the_models_take(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    server = gateway.http.get("/v2").json()
    assert server == {"name": "newshelf", "version": __version__, "extensions": []}
    encoder, recommender = (gateway.http.get(path).json() for path in (ENCODER, RECOMMENDER))
    assert {one["name"] for one in encoder["inputs"]} == {*EncoderProduct.model_fields}
    fields = {*RecommendRequest.model_fields, "unit", "items", "cursor", "request"}
    assert {one["name"] for one in recommender["inputs"]} <= fields
    answer = infer(gateway, RECOMMENDER, tensor("unit", "u"))
    assert [*outputs(answer)] == [one["name"] for one in recommender["outputs"]]


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)
NAMES = st.sampled_from(["unit", "k", "title", "price", "image", "history", "request", "x"])
TENSORS = st.fixed_dictionaries(
    {"name": NAMES, "shape": st.lists(st.integers(-1, 3), max_size=2)},
    optional={
        "datatype": st.sampled_from(["BYTES", "INT32", "FP64", "BOOL", ""]) | VALUES,
        "data": st.lists(VALUES | st.lists(VALUES, max_size=2), max_size=3) | VALUES,
        "parameters": VALUES | st.dictionaries(st.text(max_size=3), VALUES, max_size=2),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(TENSORS | VALUES, max_size=3) | VALUES, st.sampled_from(["encoder", "recommender"]))
def test_any_inference_is_read_or_refused(inputs: Any, model: Any) -> None:
    sent = orjson.dumps({"inputs": inputs})
    refused: RequestError | None = None
    body = b""
    try:
        _, body = read_inference(sent, "application/json", model)
    except RequestError as error:
        refused = error
    assert body or refused is not None
    assert refused is None or 400 <= refused.http_status < 500
