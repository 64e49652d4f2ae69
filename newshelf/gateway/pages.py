"""Pages of the gateway: templates, languages, headers, cookies and protected forms.

A page has no inline script or style, so its policy allows the gateway's own files only. Templates
escape whatever they show. A form that changes something carries a token of its session, which no
other site can know.
"""

import hashlib
import hmac
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from typing import get_args
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment

from newshelf import __version__
from newshelf.config import GatewaySettings, Language
from newshelf.errors import Forbidden, NewshelfError, RequestError
from newshelf.files import open_templates
from newshelf.gateway.context import read_body
from newshelf.gateway.schemas import form_parts
from newshelf.gateway.translation import ENGLISH, preferred_language, translated

SHOP, CONSOLE, PAGE_FILES = "/shop", "/console", "/page-files"
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=()"),
]
"""Of every page and its files; each page sets its own ``cache-control``."""
_YEAR_S = 365 * 86_400
_MAX_FIELDS = 100


def page_paths(settings: GatewaySettings) -> tuple[str, ...]:
    """Return beginnings of the paths that are answered with pages and files for a browser."""
    sections = ((SHOP, settings.shop), (CONSOLE, settings.console))
    served = [f"{path}/" for path, section in sections if section.enabled == "always"]
    return (*served, f"{PAGE_FILES}/") if served else ()


def add_page_files(app: FastAPI) -> None:
    """Add styles, script and icon of the pages to ``app``."""
    folder = str(files("newshelf.gateway") / "page_files")
    app.mount(PAGE_FILES, StaticFiles(directory=folder), name="page-files")


def language_of(request: Request) -> Language:
    """Return the language of a page: the link's, the one chosen before, or the browser's."""
    chosen = request.query_params.get("lang"), request.cookies.get("newshelf_language")
    accepted = preferred_language(request.headers.get("accept-language", "").encode("latin-1"))
    known: dict[str | None, Language] = {language: language for language in get_args(Language)}
    return next((known[one] for one in chosen if one in known), accepted)


@cache
def _texts(language: Language) -> Mapping[str, str]:
    if language == ENGLISH:
        return {}
    table = (files("newshelf.gateway") / f"pages_{language}.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in table.splitlines())


def _say(language: Language, text: str, /, **values: object) -> str:
    return _texts(language).get(text, text).format(**values)


def _link(request: Request, **changed: str) -> str:
    """Return the address of this page with changed parameters, without the host."""
    kept = {name: text for name, text in request.query_params.items() if name != "lang"}
    return f"{request.url.path}?{urlencode(kept | changed)}"


def page(request: Request, template: str, *, status: int = 200, **values: object) -> Response:
    """Render a template in the language of the request."""
    language = language_of(request)
    body = (
        _environment()
        .get_template(template)
        .render(
            t=partial(_say, language), link=partial(_link, request), language=language, **values
        )
    )
    response = HTMLResponse(body, status, {"cache-control": "no-store"})
    if request.query_params.get("lang") == language:
        keep(response, request, "language", language)
    return response


def error_page(request: Request, error: NewshelfError) -> Response:
    """Return the page of an error, which says what to do in the visitor's language."""
    message = translated(error.code, error.message, language_of(request)) or error.message
    home = CONSOLE if request.url.path.startswith(CONSOLE) else SHOP
    said = {"code": error.code, "message": message, "home": home}
    return page(request, "error.html", status=error.http_status, **said)


def keep(response: Response, request: Request, name: str, value: str, *, path: str = "/") -> None:
    """Set a cookie that scripts cannot read; an empty value removes it.

    It lasts a year. One of a path below ``/`` ends with the browser, and no other site sends it.
    """
    lasting_s = _YEAR_S if path == "/" else None
    response.set_cookie(
        f"newshelf_{name}",
        value,
        max_age=lasting_s if value else 0,
        path=path,
        httponly=True,
        samesite="lax" if path == "/" else "strict",
        secure=request.url.scheme == "https",
    )


def form_token(key: bytes, session: str) -> str:
    """Return the token of a session's forms."""
    return hmac.digest(key, f"form {session}".encode(), hashlib.sha256).hex()


async def read_form(request: Request, key: bytes, session: str) -> dict[str, bytes]:
    """Return the fields of a form, or raise ``Forbidden`` if it is not of this session."""
    body, kind = await read_body(request)
    if kind.startswith("multipart/form-data"):
        fields = {name: bytes(part) for name, part in form_parts(body, kind).items()}
    else:
        try:
            parsed = parse_qsl(body.decode("latin-1"), max_num_fields=_MAX_FIELDS)
        except ValueError:
            raise RequestError("the form cannot be read") from None
        fields = {name: value.encode() for name, value in parsed}
    if not hmac.compare_digest(fields.pop("token", b""), form_token(key, session).encode()):
        raise Forbidden("this form is not of your visit; open its page again")
    return fields


@cache
def _environment() -> Environment:
    environment = open_templates("newshelf.gateway")
    environment.globals["version"] = __version__
    environment.filters["price"] = lambda amount: f"{amount:,.2f}"
    return environment
