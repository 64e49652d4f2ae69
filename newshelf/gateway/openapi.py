"""The API's description: ``/openapi.json``, and ``/docs`` with Swagger UI.

The routes read a body's bytes and check them with Newshelf's own messages, so FastAPI does not know
their schemas; they are added here from the same models. The page loads nothing from other servers.
"""

import re
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from newshelf.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidField,
    NewshelfError,
    NotJson,
    RateLimited,
    RequestError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from newshelf.serving.schemas import ErrorBody

_BODIES: dict[str, type[BaseModel]] = {}
_REF = "#/components/schemas/{model}"


def body_of(*models: type[BaseModel]) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that takes any of ``models`` as JSON."""
    _BODIES.update({model.__name__: model for model in models})
    refs = [{"$ref": _REF.format(model=model.__name__)} for model in models]
    schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def errors_of(*errors: type[NewshelfError]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may answer with any of ``errors``."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        codes = responses.get(error.http_status, {}).get("description", "")
        described = f"`{error.code}`: {(error.__doc__ or '').splitlines()[0]}"
        responses[error.http_status] = {
            "model": ErrorBody,
            "description": f"{codes}; {described}" if codes else described,
        }
    return responses


def parameter_of(name: str, kind: str = "string", place: str = "query") -> dict[str, Any]:
    """Return the description of a parameter."""
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}}


REFUSED = errors_of(
    RequestError,
    NotJson,
    InvalidField,
    TooLarge,
    UnsupportedMedia,
    Unauthorized,
    Forbidden,
    RateLimited,
)
NOT_NOW = errors_of(Unavailable, DeadlineExceeded)


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the description of ``app``, which caches it."""
    if not app.openapi_schema:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path, operations in schema["paths"].items():
            for name in re.findall(r"{(\w+)}", path):
                for one in operations.values():
                    one["parameters"] = [parameter_of(name, place="path")]
        _, bodies = models_json_schema(
            [(model, "validation") for model in _BODIES.values()], ref_template=_REF
        )
        components = schema.setdefault("components", {})
        components["schemas"] = {**bodies["$defs"], **components.get("schemas", {})}
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema


DOCS = "/docs"
DOCS_FILES = "/docs-files"
"""Path of the page's script, style and icon."""


def add_docs_page(app: FastAPI, described_at: str) -> None:
    """Add the page and its files."""
    static = files("fastapi_offline") / "static"
    app.mount(DOCS_FILES, StaticFiles(directory=str(static)), name="docs-files")
    page = get_swagger_ui_html(
        openapi_url=described_at,
        title=f"{app.title}: API",
        swagger_js_url=f"{DOCS_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{DOCS_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{DOCS_FILES}/favicon.png",
    )

    async def docs(_request: Request) -> HTMLResponse:
        return page

    app.add_route(DOCS, docs, include_in_schema=False)
