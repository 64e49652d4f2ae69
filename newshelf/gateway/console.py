"""The console at ``/console``: pages for people who run the shop.

A session begins with a key that has the scope ``admin``. What a page shows or changes is an answer
of the documented API, called in this process with that key. The store keeps the hash of a session's
token, so every process knows when it has ended: by signing out, by another session of the key, with
the key, or after half an hour without a page.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode

import orjson
import pybase64
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from newshelf.errors import Conflict, Forbidden, InvalidField, NewshelfError, Unauthorized
from newshelf.gateway.context import SCOPE, context_of
from newshelf.gateway.keys import ApiKey, digest_of, scope_of
from newshelf.gateway.pages import CONSOLE, form_token, keep, page, read_form
from newshelf.gateway.schemas import id_of
from newshelf.gateway.shop import picture
from newshelf.gateway.state import AppState
from newshelf.rollout.assignment import Tester
from newshelf.serving.schemas import STARTING_KINDS
from newshelf.store.items import StoredItem

_SEE_OTHER = 303
_SIGN_INS_PER_S, _SESSION_S = 0.2, 1800.0
_PAGE, _PREVIEW, _EVENTS = 24, 12, 50


class Desk:
    """One request of somebody who has signed in."""

    def __init__(
        self, request: Request, state: AppState, app: FastAPI, key: ApiKey, session: str
    ) -> None:
        self.request, self.state, self.key, self.session = request, state, key, session
        self.asked, self._app = request.query_params, app
        self._form_key = state.recommender.cursors.key

    async def call(self, method: str, path: str, body: object = None, **asked: str) -> Any:
        """Return the answer of a route of the API."""
        address = context_of(self.request).address
        self.state.access.admit_digest(self.key.sha256, scope_of(path), address)
        splits = self.state.recommender.router.current.splits
        tester = Tester(splits[0].rollout, "control") if splits else None
        # What is looked up here must not count in a rollout.
        context = replace(context_of(self.request), tester=tester)
        scope = {
            **self.request.scope,
            SCOPE: context,
            "method": method,
            "path": path,
            "query_string": urlencode(asked).encode(),
            "headers": [(b"content-type", b"application/json")],
        }
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": orjson.dumps(body), "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            parts.append(message.get("body", b""))

        await self._app.router(scope, receive, send)
        return orjson.loads(b"".join(parts))

    async def preview(self, fields: Mapping[str, object]) -> dict[str, Any]:
        """Return what a shopper would see, with stored products; an error has a message."""
        try:
            answer = await self.call("POST", "/v1/admin/preview", {**fields, "explain": True})
        except NewshelfError as error:
            answer = error.body()
        items = answer.get("items", [])
        stored = await self.stored([one["id"] for one in items])
        rows = [one | {"stored": stored.get(one["id"])} for one in items]
        return {"message": None, "model_version": "", **answer, "items": rows}

    async def stored(self, ids: Sequence[str]) -> dict[str, StoredItem]:
        """Return the products by id."""
        return await asyncio.to_thread(self.state.store.items.get, ids)

    async def form(self) -> dict[str, str]:
        """Return the form's texts without blanks at the ends, and its picture in base64."""
        form = await read_form(self.request, self._form_key, f"console {self.session}")
        image = pybase64.b64encode(form.pop("image", b"")).decode()
        return {name: text.decode("utf-8", "replace").strip() for name, text in form.items()} | {
            "image": image
        }

    async def show(self, name: str) -> Response:
        """Return the page of a route of the API."""
        return self.page(f"{name}.html", answer=await self.call("GET", f"/v1/admin/{name}"))

    def page(self, template: str, **values: Any) -> Response:
        """Return a page."""
        token = form_token(self._form_key, f"console {self.session}")
        currency = self.state.plan.settings.shop.currency
        values |= {"desk": self, "token": token, "currency": currency, "pictures": CONSOLE}
        return page(self.request, f"console/{template}", **values)


def go(path: str, **asked: str) -> Response:
    """Return a redirection to a page of the console."""
    return RedirectResponse(f"{CONSOLE}{path}?{urlencode(asked)}".removesuffix("?"), _SEE_OTHER)


async def sign_in(request: Request, state: AppState) -> Response:
    """Show the form, or begin a session with the key that it brings."""
    form_key, address = state.recommender.cursors.key, context_of(request).address
    client, form_name = request.client.host if request.client else "", f"start {address}"
    if request.url.scheme != "https" and not ip_address(client).is_loopback:
        raise Forbidden("a key is taken over TLS only, or from this machine; see docs/console.md")
    if request.method == "GET":
        return page(request, "console/sign_in.html", token=form_token(form_key, form_name))
    state.access.visit(address, _SIGN_INS_PER_S, "sign-ins")
    form = await read_form(request, form_key, form_name)
    sha256 = digest_of(form.get("key", b"").decode("latin-1").strip())
    key, session = state.access.admit_digest(sha256, "admin", address), secrets.token_hex(32)
    leases, name = state.store.leases, _lease(key)
    if before := await asyncio.to_thread(leases.holder, name):
        await asyncio.to_thread(leases.release, name, before)
    await asyncio.to_thread(leases.acquire, name, digest_of(session), _SESSION_S)
    response = go("")
    keep(response, request, "console", f"{sha256}.{session}", path=CONSOLE)
    return response


def _lease(key: ApiKey) -> str:
    # Rollouts have leases too; their names have no blank.
    return f"console {key.name}"


async def _signed_in(request: Request, state: AppState, app: FastAPI) -> Desk | None:
    """Return the request of a session that has not ended; prolong it, unless a script asks."""
    context, leases = context_of(request), state.store.leases
    sha256, _, session = request.cookies.get("newshelf_console", "").partition(".")
    try:
        key = state.access.admit_digest(sha256, "admin", context.address)
    except (Unauthorized, Forbidden):
        return None
    name, holder = _lease(key), digest_of(session)
    if await asyncio.to_thread(leases.holder, name) != holder:
        return None
    if "hx-request" not in request.headers:
        await asyncio.to_thread(leases.acquire, name, holder, _SESSION_S)
    context.key = key
    return Desk(request, state, app, key, session)


async def sign_out(desk: Desk) -> Response:
    """End the session."""
    await desk.form()
    leases = desk.state.store.leases
    await asyncio.to_thread(leases.release, _lease(desk.key), digest_of(desk.session))
    response = go("/sign-in")
    keep(response, desk.request, "console", "", path=CONSOLE)
    return response


async def overview(desk: Desk) -> Response:
    """Show processes, models, store and rollouts."""
    server = await desk.call("GET", "/v1/admin/status")
    rollouts = await desk.call("GET", "/v1/admin/rollouts")
    return desk.page("overview.html", server=server, rollouts=rollouts)


async def shelf(desk: Desk) -> Response:
    """Show products: all by id, or the one of an id and those that a sentence finds."""
    text, after = desk.asked.get("q", "").strip(), desk.asked.get("after", "")
    if text:
        answer = await desk.call("POST", "/v1/search", {"text": text, "k": _PAGE})
        ids = [id_of({"id": text}) or "", *(one["id"] for one in answer.get("items", ()))]
    else:
        answer = await desk.call("GET", "/v1/items", after=after, limit=str(_PAGE))
        ids = [one["id"] for one in answer["items"]]
    stored = await desk.stored(ids)
    items = [stored[one] for one in dict.fromkeys(ids) if one in stored]
    return desk.page("shelf.html", items=items, text=text, after=answer.get("after"))


_TEXTS = ("id", "title", "description", "product_type", "brand", "availability", "image")


async def add_product(desk: Desk) -> Response:
    """Store a product that there is not yet."""
    form = await desk.form()
    fields: dict[str, object] = {name: form[name] for name in _TEXTS if form.get(name)}
    fields["price"] = _number(form.get("price", ""))
    known = (await desk.stored([name := id_of(form) or ""])).get(name)
    if known is not None and not known.deleted:
        raise Conflict("there is a product with this id; find it, and change it there", field="id")
    await desk.call("POST", "/v1/items", {"items": [fields]})
    return go("/item", id=name)


async def product(desk: Desk) -> Response:
    """Show a product, and how far each served version is with it."""
    item_id = desk.asked.get("id", "")
    shown = await desk.call("GET", f"/v1/items/{item_id}")
    item = (await desk.stored([shown["id"]]))[shown["id"]]
    return desk.page("item.html", item=item, versions=shown["versions"])


async def change_product(desk: Desk) -> Response:
    """Change price and availability of a product."""
    form = await desk.form()
    price, availability = _number(form.get("price", "")), form.get("availability") or None
    changed = {"price": price, "availability": availability}
    await desk.call("PATCH", f"/v1/items/{form.get('id', '')}", changed)
    return go("/item", id=form["id"])


def _number(text: str) -> float | str | None:
    """Return a price; the API says what is wrong with one that is no number."""
    try:
        return float(text) if math.isfinite(float(text)) else text
    except ValueError:
        return text or None


async def rollout(desk: Desk) -> Response:
    """Show the course of a rollout."""
    course = await desk.call("GET", f"/v1/admin/rollouts/{desk.asked.get('name', '')}")
    analysed = [one["analysis"] for one in course["looks"] if one.get("analysis")]
    return desk.page("rollout.html", course=course, analysed=analysed)


async def command_rollout(desk: Desk) -> Response:
    """Pause, resume, promote or abort a rollout; the last two with the version's name typed."""
    form = await desk.form()
    name, command = form.get("name", ""), form.get("command", "")
    course = await desk.call("GET", f"/v1/admin/rollouts/{name}")
    served = {"promote": course["challenger"], "abort": course["control"]}.get(command)
    if served is not None and form.get("confirm") != served:
        raise InvalidField(f"type {served}, the version that is to serve", field="confirm")
    await desk.call("POST", f"/v1/admin/rollouts/{name}", {"command": command})
    return go("/rollout", name=name)


async def shopper(desk: Desk) -> Response:
    """Show what is kept about a unit, what it would see, and why."""
    unit = desk.asked.get("unit", "").strip()
    if not unit:
        return desk.page("shopper.html", unit="", record=None)
    record = await desk.call("GET", f"/v1/units/{unit}")
    seen = await desk.preview({"unit": unit, "k": _PREVIEW})
    events = sorted(record["feedback"], key=lambda one: str(one["at"]))[: -_EVENTS - 1 : -1]
    return desk.page("shopper.html", unit=unit, record=record, events=events, seen=seen)


async def erase_shopper(desk: Desk) -> Response:
    """Erase everything about a unit whose id is typed once more."""
    form = await desk.form()
    unit = form.get("unit", "")
    if not unit or form.get("confirm") != unit:
        raise InvalidField(f"type {unit}, the unit that is to be erased", field="confirm")
    await desk.call("DELETE", f"/v1/units/{unit}")
    return go("/shopper", unit=unit)


async def rules(desk: Desk) -> Response:
    """Show rules and placements, and what a placement would answer now."""
    found = await desk.call("GET", "/v1/admin/rules")
    placement, unit = desk.asked.get("placement", ""), desk.asked.get("unit", "").strip()
    ids = [one.strip() for one in desk.asked.get("products", "").split(",") if one.strip()]
    seen = None
    if placement:
        starts = found["placements"].get(placement, {}).get("kind") in STARTING_KINDS
        fields = {"items" if starts else "history": ids} if ids else {}
        seen = await desk.preview({"unit": unit or "console", "placement": placement, **fields})
    asked = {"placement": placement, "unit": unit, "products": ", ".join(ids)}
    return desk.page("rules.html", found=found, seen=seen, asked=asked)


_Show = Callable[[Desk], Awaitable[Response]]
ROUTES: Sequence[tuple[str, str, _Show]] = (
    ("GET", "", overview),
    ("GET", "/shelf", shelf),
    ("POST", "/shelf", add_product),
    ("GET", "/item", product),
    ("POST", "/item", change_product),
    ("GET", "/picture", lambda desk: picture(desk.state, desk.asked)),
    ("GET", "/rollout", rollout),
    ("POST", "/rollout", command_rollout),
    ("GET", "/shopper", shopper),
    ("POST", "/shopper", erase_shopper),
    ("GET", "/rules", rules),
    ("GET", "/retrainings", lambda desk: desk.show("retrainings")),
    ("GET", "/keys", lambda desk: desk.show("keys")),
    ("POST", "/sign-out", sign_out),
)
"""Those that need a session."""


def add_console_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``, whose API they call."""

    async def answer(request: Request, show: _Show) -> Response:
        desk = await _signed_in(request, state_of(), app)
        if desk is not None:
            return await show(desk)
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"hx-redirect": f"{CONSOLE}/sign-in"})
        if request.method == "GET":
            return go("/sign-in")
        raise Unauthorized("the session has ended: sign in again")

    async def start(request: Request) -> Response:
        return await sign_in(request, state_of())

    for method, path, show in ROUTES:
        end = partial(answer, show=show)
        app.add_route(CONSOLE + path, end, methods=[method], include_in_schema=False)
    app.add_route(f"{CONSOLE}/sign-in", start, methods=["GET", "POST"], include_in_schema=False)
