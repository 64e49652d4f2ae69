"""Routes of the Open Inference Protocol (v2, REST), for clients of KServe: tensors in JSON.

Inferences become requests of ``/v1/encode`` and ``/v1/recommend``, which check them, and their
answers become tensors. Rollouts choose the version: no path with ``/versions/`` is served.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal, Self, get_args

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import Field, model_validator

from newshelf.errors import BadPicture, InvalidField, Unavailable, UnknownItem, UnsupportedMedia
from newshelf.files import StrictModel
from newshelf.gateway.context import context_of, json_response, read_body
from newshelf.gateway.models import ModelName
from newshelf.gateway.openapi import NOT_NOW, REFUSED, body_of, errors_of
from newshelf.gateway.schemas import parse_recommend_body, read_table
from newshelf.gateway.state import AppState, parsed
from newshelf.gateway.upstream import Reply
from newshelf.serving.schemas import validate

_JSON, _OK = "application/json", 200
_DESCRIBED = orjson.loads((files("newshelf.gateway") / "open_inference.json").read_bytes())
"""Answers that never change, by path: server, liveness, and the tensors of each model."""
_TENSORS = {model: _DESCRIBED[f"/v2/models/{model}"] for model in get_args(ModelName)}
_INTEGERS: set[type] = {int}
_NUMBERS: set[type] = {int, float}
_TYPES: Mapping[str, set[type]] = {
    "BYTES": {str},
    "INT32": _INTEGERS,
    "INT64": _INTEGERS,
    "FP32": _NUMBERS,
    "FP64": _NUMBERS,
}


class TensorIn(StrictModel):
    """A tensor of one dimension."""

    name: str
    datatype: Literal["BYTES", "INT32", "INT64", "FP32", "FP64"]
    shape: Annotated[list[int], Field(min_length=1, max_length=1)]
    parameters: Mapping[str, object] = {}
    data: list[object]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        types = _TYPES[self.datatype]
        if self.shape != [len(self.data)] or not types.issuperset(map(type, self.data)):
            raise ValueError("data must have as many values as shape says, all of the datatype")
        return self


class InferIn(StrictModel):
    """An inference, answered with all outputs; ``parameters`` and ``outputs`` are ignored."""

    id: str | None = None
    parameters: Mapping[str, object] = {}
    inputs: Annotated[list[TensorIn], Field(min_length=1, fail_fast=True)]
    outputs: Sequence[object] = ()


def with_error(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an error with the protocol's field ``error``."""
    return {"error": ": ".join(filter(None, (said["field"], said["message"]))), **said}


def read_inference(body: bytes, content_type: str, model: ModelName) -> tuple[InferIn, bytes]:
    """Return an inference, and the body of the request that it becomes."""
    asked = validate(InferIn, read_table(body, content_type))
    columns: dict[str, Any] = {tensor.name: tensor.data for tensor in asked.inputs}
    if len(columns) < len(asked.inputs):
        raise InvalidField("an input is given twice", field="inputs")
    if model == "encoder":
        if len({*map(len, columns.values())}) > 1:
            raise InvalidField("a row is a product: all shapes must be equal", field="inputs")
        rows = [zip(columns, row, strict=True) for row in zip(*columns.values(), strict=True)]
        # A tensor has no nulls: an empty text is absent.
        products = [{name: value for name, value in row if value != ""} for row in rows]
        return asked, orjson.dumps({"instances": products})
    for tensor in _TENSORS[model]["inputs"]:
        if tensor["shape"] == [1] and (data := columns.get(tensor["name"])) is not None:
            if len(data) != 1:
                raise InvalidField("must have the shape [1]", field=tensor["name"])
            columns[tensor["name"]] = data[0]
    if "request" not in columns:
        return asked, orjson.dumps(columns)
    if len(columns) > 1:
        raise InvalidField("it is the whole request: send no other input", field="request")
    return asked, str(columns["request"]).encode()


def write_inference(asked: InferIn, model: ModelName, reply: Reply) -> Response:
    """Return an answer of ``/v1`` in tensors; an error of one product is that of all."""
    answer = orjson.loads(reply.body)
    rows = answer.get("predictions", answer.get("items", []))
    failed = next((row["error"] for row in rows if "error" in row), None)
    if failed or reply.status != _OK:
        body = with_error(failed or answer)
        return Response(orjson.dumps(body), body.get("status", reply.status), media_type=_JSON)
    outputs = [
        {
            **tensor,
            "shape": [len(rows), *tensor["shape"][1:]],
            "data": [row[tensor["name"].removeprefix("item_")] for row in rows],
        }
        for tensor in _TENSORS[model]["outputs"]
    ]
    told = {name: answer[name] for name in ("source", "request_id", "cursor") if name in answer}
    own = {"id": asked.id, "model_version": answer.get("model_version")}
    named = {name: value for name, value in own.items() if value is not None}
    return json_response({"model_name": model, **named, "parameters": told, "outputs": outputs})


def add_open_inference_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``."""

    async def describe(request: Request) -> Response:
        """Describe the server, or the tensors of a model. Needs no key."""
        return json_response(_DESCRIBED[request.url.path])

    for path in _DESCRIBED:
        app.get(path)(describe)

    async def ready(request: Request) -> Response:
        """Return 200 if the model answers; of the server, if all do. Needs no key."""
        readiness, path = state_of().readiness, request.url.path
        missing = await readiness.missing(context_of(request).deadline)
        for model, why in missing.items():
            if model in path or "health" in path:
                raise Unavailable(f"{model}: {why}")
        if "encoder" not in path:
            readiness.spooled()
        return json_response({"ready": True})

    async def infer(request: Request) -> Response:
        """Answer ``/v1/encode`` or ``/v1/recommend`` in tensors."""
        if "inference-header-content-length" in request.headers:
            raise UnsupportedMedia("binary tensors are not served; send tensors in JSON")
        model: ModelName = "encoder" if "/encoder" in request.url.path else "recommender"
        state, context = state_of(), context_of(request)
        asked, body = await parsed(read_inference, *await read_body(request), model)
        if model == "encoder":
            reply = await state.encode(body, _JSON, context)
        else:
            reply = await state.recommend(parse_recommend_body, body, _JSON, context)
        return write_inference(asked, model, reply)

    answers = {**REFUSED, **errors_of(UnknownItem, BadPicture), **NOT_NOW}
    body = body_of(InferIn)
    app.get("/v2/health/ready", responses=errors_of(Unavailable))(ready)
    for model in get_args(ModelName):
        app.get(f"/v2/models/{model}/ready", responses=errors_of(Unavailable))(ready)
        app.post(f"/v2/models/{model}/infer", responses=answers, openapi_extra=body)(infer)
