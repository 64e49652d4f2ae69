"""``/docs``: Swagger UI, from this server alone. A page of a gateway loads nothing from outside."""

from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

__all__ = ["DOCS", "DOCS_FILES", "add_docs_page"]

DOCS = "/docs"
DOCS_FILES = "/docs-files"
"""Under it are the page's script, style and icon."""


def add_docs_page(app: FastAPI, described_at: str) -> None:
    """Serve the page and what it needs.

    Args:
        app: gets the routes.
        described_at: path of its OpenAPI description.
    """
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
