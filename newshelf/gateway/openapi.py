"""``/openapi.json``: FastAPI's, with the bodies that are read without it.

The hot routes take the body's bytes and check them once, with Newshelf's own messages; what
they accept is described here from the same models.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from newshelf.errors import NewshelfError
from newshelf.gateway.parse import FeedbackEvent, FeedbackIn, RecommendIn, SimilarIn
from newshelf.serving.schemas import EncoderInstances, EncoderProduct, ErrorBody

__all__ = ["body_of", "describe", "errors_of"]

_BODIES = (RecommendIn, SimilarIn, FeedbackIn, FeedbackEvent, EncoderProduct, EncoderInstances)
_REF = "#/components/schemas/{model}"


def body_of(*models: type[BaseModel]) -> dict[str, Any]:
    """The ``requestBody`` of a route that takes any of ``models`` as JSON."""
    refs = [{"$ref": _REF.format(model=model.__name__)} for model in models]
    schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def errors_of(*errors: type[NewshelfError]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with any of ``errors``."""
    told: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        codes = told.get(error.http_status, {}).get("description", "")
        described = f"`{error.code}`: {(error.__doc__ or '').splitlines()[0]}"
        told[error.http_status] = {
            "model": ErrorBody,
            "description": f"{codes}; {described}" if codes else described,
        }
    return told


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole description of ``app``, which keeps it."""
    if not app.openapi_schema:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, bodies = models_json_schema(
            [(model, "validation") for model in _BODIES], ref_template=_REF
        )
        components = schema.setdefault("components", {})
        components["schemas"] = {**bodies["$defs"], **components.get("schemas", {})}
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
