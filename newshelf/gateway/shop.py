"""The shop window at ``/shop``: pages that show a visitor what the API answers.

A browser has no API key. It gets products and gives feedback for one unit only: that of its own
cookie, 128 random bits under a prefix, so that no cookie names a shopper of the API. Every answer
and every event takes the way of ``/v1/recommend``, ``/v1/search`` and ``/v1/feedback``.
"""

import asyncio
import hashlib
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, NamedTuple, get_args
from urllib.parse import quote

import orjson
import pybase64
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, TypeAdapter

from newshelf.catalog.schema import READ_KINDS, Id, picture_kind
from newshelf.errors import (
    BadPicture,
    ErasedUnit,
    NewshelfError,
    NotFound,
    Unavailable,
    UnknownItem,
)
from newshelf.gateway.context import context_of
from newshelf.gateway.pages import SHOP, form_token, keep, language_of, page, read_form
from newshelf.gateway.schemas import id_of, parse_recommend_body, parse_search_body
from newshelf.gateway.state import AppState, Parse
from newshelf.gateway.translation import in_language
from newshelf.rollout.assignment import Team, Tester
from newshelf.store.items import StoredItem

_JSON = "application/json"
_OK, _SEE_OTHER, _SERVER_ERROR = 200, 303, 500
_TOKEN = re.compile(r"[0-9a-f]{32}")
_IN_CART, _CART_BYTES = 20, 3_000
_CART: TypeAdapter[list[str]] = TypeAdapter(Annotated[list[Id], Field(max_length=_IN_CART)])
_FEED, _ROW, _SHORT_ROW = 24, 8, 4


class View(NamedTuple):
    """The shop as somebody else sees it; no analysis of a rollout counts it."""

    history: Sequence[str] | None
    """None is the visitor's own."""
    tester: Tester | None


def views_of(state: AppState) -> dict[str, View]:
    """Return the views of the current rollouts by name; none if the settings do not allow any."""
    if not state.plan.settings.shop.views:
        return {}
    splits, known = state.recommender.router.current.splits, state.plan.known_shopper
    control = Tester(splits[0].rollout, "control") if splits else None
    views = {"newcomer": View((), control)} | ({"known": View(known, control)} if known else {})
    for split in splits:
        for team in get_args(Team):
            name = quote(f"{team}:{split.rollout}", safe="")
            views[name] = View(None, Tester(split.rollout, team))
    return views


class Visit:
    """One request of a browser, and what its cookies say."""

    def __init__(self, request: Request, state: AppState) -> None:
        self.request, self.state = request, state
        self.asked, self.context = request.query_params, context_of(request)
        kept = request.cookies.get("newshelf_visitor", "")
        self.is_new = not _TOKEN.fullmatch(kept)
        self.visitor = secrets.token_hex(16) if self.is_new else kept
        self.key = state.recommender.cursors.key
        self.cart = _read_cart(request.cookies.get("newshelf_cart", ""))
        self.views = views_of(state)
        self.view = self.views.get(request.cookies.get("newshelf_view", ""))

    async def form(self) -> dict[str, bytes]:
        """Return the form's fields."""
        return await read_form(self.request, self.key, self.visitor)

    async def row(self, parse: Parse = parse_recommend_body, **fields: Any) -> dict[str, Any]:
        """Return the API's answer with its status and stored products; an error has no items."""
        if fields.get("placement") not in self.state.placements:
            fields.pop("placement", None)
        fields["unit"] = f"shop-{self.visitor}"
        if parse is parse_recommend_body:
            fields["explain"] = True
        if self.view is not None and self.view.history is not None and "items" not in fields:
            # A search takes no history, so that of a newcomer is nobody's.
            known = parse is parse_recommend_body
            fields |= {"history": list(self.view.history)} if known else {"unit": None}
        context = replace(
            self.context,
            request_id=secrets.token_hex(16),
            started_s=time.perf_counter(),
            tester=None if self.view is None else self.view.tester,
        )
        try:
            reply = await self.state.recommend(parse, orjson.dumps(fields), _JSON, context)
            status, body = reply.status, reply.body
        except NewshelfError as error:
            status, body = error.http_status, orjson.dumps(error.body())
        answer: dict[str, Any] = orjson.loads(in_language(body, language_of(self.request)))
        self.context.source, self.context.version = context.source, context.version
        self.context.reason = context.reason or answer.get("code")
        items = answer.get("items", [])
        stored = await self.stored([item["id"] for item in items])
        found = [item | {"stored": stored.get(item["id"])} for item in items]
        kept = [one for one in found if not _deleted(one["stored"])]
        return answer | {"items": kept, "status": status}

    async def stored(self, ids: Sequence[str]) -> dict[str, StoredItem]:
        """Return the products by id; none while the store is away."""
        try:
            return await asyncio.to_thread(self.state.store.items.get, ids)
        except Unavailable:
            return {}

    def event(self, event_type: str, item: str, **fields: Any) -> dict[str, Any]:
        """Return feedback of the visitor."""
        event = {"event_id": secrets.token_hex(16), "event_type": event_type, "item_id": item}
        return event | {"unit": f"shop-{self.visitor}"} | fields

    async def tell(self, events: Sequence[dict[str, Any]]) -> None:
        """Record what the visitor did, all of it or an error."""
        try:
            await self.state.feedback(orjson.dumps({"events": events}), _JSON, self.context)
        except ErasedUnit:
            # Somebody who was erased comes back as somebody new.
            self.visitor, self.is_new = secrets.token_hex(16), True

    async def mention(self, event: dict[str, Any]) -> None:
        """Record what the visitor did; the page is shown even if that fails."""
        try:
            await self.tell([event])
        except NewshelfError as error:
            self.context.reason = error.code

    def page(self, template: str, *rows: dict[str, Any], **values: Any) -> Response:
        """Return a page; its status is an error's if all rows are the server's errors."""
        failed = bool(rows) and all(row["status"] >= _SERVER_ERROR for row in rows)
        response = page(
            self.request,
            template,
            status=rows[0]["status"] if failed else _OK,
            visit=self,
            rows=rows,
            token=form_token(self.key, self.visitor),
            categories=self.state.recommender.fallback.categories,
            currency=self.state.plan.settings.shop.currency,
            **values,
        )
        return self.finished(response)

    def finished(self, response: Response, **cookies: str) -> Response:
        """Return the response with the visitor's cookie and others."""
        if self.is_new:
            cookies["visitor"] = self.visitor
        for name, value in cookies.items():
            keep(response, self.request, name, value)
        return response


def _deleted(item: StoredItem | None) -> bool:
    return item is not None and item.deleted


def _read_cart(cookie: str) -> list[str]:
    try:
        return _CART.validate_json(urlsafe_b64decode(cookie)) if cookie else []
    except ValueError:
        return []


def _with(cart: Sequence[str], item: str) -> list[str]:
    """Return the cart with a product as its last, without the first ones if it is too large."""
    changed = [*[one for one in cart if one != item][1 - _IN_CART :], item]
    while len(orjson.dumps(changed)) > _CART_BYTES:
        changed = changed[1:]
    return changed


async def home(visit: Visit) -> Response:
    """Show the visitor's feed; its first page with what is new and what is in demand."""
    cursor = visit.asked.get("cursor", "")
    rows = [visit.row(placement="feed", k=_FEED, cursor=cursor)]
    if not cursor:
        rows += [visit.row(kind=kind, k=_ROW) for kind in ("trending", "new")]
    return visit.page("home.html", *await asyncio.gather(*rows))


async def category(visit: Visit) -> Response:
    """Show the products of a category."""
    name, cursor = visit.asked.get("name", ""), visit.asked.get("cursor", "")
    filters = {"product_type": [name]}
    row = await visit.row(placement="category", k=_FEED, cursor=cursor, filters=filters)
    return visit.page("category.html", row, name=name)


async def search(visit: Visit) -> Response:
    """Show what a sentence finds."""
    text, cursor = visit.asked.get("q", "").strip(), visit.asked.get("cursor", "")
    row = visit.row(parse_search_body, text=text, k=_FEED, cursor=cursor) if text else None
    return visit.page("search.html", *([await row] if row else []), text=text)


async def search_by_picture(visit: Visit) -> Response:
    """Show what looks like a picture."""
    image = pybase64.b64encode((await visit.form()).get("image", b"")).decode()
    row = visit.row(parse_search_body, image=image, k=_FEED) if image else None
    return visit.page("search.html", *([await row] if row else []), text="")


async def product(visit: Visit) -> Response:
    """Show a product, with similar ones and those bought with it; record the click."""
    item_id = id_of({**visit.asked}) or ""
    item = (await asyncio.to_thread(visit.state.store.items.get, [item_id])).get(item_id)
    if item is None or item.deleted:
        raise UnknownItem("this product is not sold here, or not any more")
    clicked, prefetched = visit.asked.get("from", ""), "sec-purpose" in visit.request.headers
    if _TOKEN.fullmatch(clicked) and not visit.is_new and not prefetched:
        # Reloading the page is no second click.
        event_id = hashlib.sha256(f"{clicked} {item.id}".encode()).hexdigest()
        await visit.mention(visit.event("click", item.id, request_id=clicked, event_id=event_id))
    rows = await asyncio.gather(
        visit.row(placement="product", kind="similar", items=[item.id], k=_ROW),
        visit.row(kind="bought_together", items=[item.id], k=_SHORT_ROW),
    )
    return visit.page("item.html", *rows, item=item)


async def cart(visit: Visit) -> Response:
    """Show the cart, and what goes with it."""
    stored = await visit.stored(visit.cart)
    items = [stored[one] for one in visit.cart if one in stored and not stored[one].deleted]
    wanted = {"kind": "cart", "items": visit.cart} if items else {"kind": "trending"}
    row = await visit.row(placement="cart", k=_ROW, **wanted)
    return visit.page("cart.html", row, items=items, bought="bought" in visit.asked)


async def change_cart(visit: Visit) -> Response:
    """Put a product into the cart, remove it, or buy all; tell the store, and show the cart."""
    form = {name: text.decode("utf-8", "replace") for name, text in (await visit.form()).items()}
    action, item, shown = form.get("action"), id_of(form, "item") or "", f"{SHOP}/cart"
    stored = await visit.stored([item, *visit.cart])
    added = action == "add" and item in stored
    if action == "buy":
        bought = [stored[one] for one in visit.cart if one in stored]
        # The page thanks for what is recorded; otherwise the cart stays.
        if bought:
            await visit.tell(
                [visit.event("purchase", one.id, value=one.columns.price) for one in bought]
            )
        visit.cart, shown = [], f"{SHOP}/cart?bought=1"
    elif action == "remove":
        visit.cart = [one for one in visit.cart if one != item]
    elif added:
        visit.cart = _with(visit.cart, item)
        await visit.mention(visit.event("cart", item))
    in_place = added and "hx-request" in visit.request.headers
    response = visit.page("added.html") if in_place else RedirectResponse(shown, _SEE_OTHER)
    value = urlsafe_b64encode(orjson.dumps(visit.cart)).decode() if visit.cart else ""
    return visit.finished(response, cart=value)


async def change_view(visit: Visit) -> Response:
    """Look at the shop as somebody else, or as oneself again."""
    name = (await visit.form()).get("view", b"").decode("utf-8", "replace")
    view = name if name in visit.views else ""
    return visit.finished(RedirectResponse(SHOP, _SEE_OTHER), view=view)


async def picture(state: AppState, asked: Mapping[str, str]) -> Response:
    """Return a product's picture, whose place the store knows and no request names."""
    limit = state.plan.limits.max_picture_bytes
    found = await asyncio.to_thread(_picture, state, id_of({**asked}) or "", limit)
    kind = picture_kind(found[1]) if found else None
    if found is None or kind not in READ_KINDS:
        raise NotFound("there is no such picture")
    # The address changes with the product.
    unchanging = asked.get("v") == str(found[0].revision)
    kept = "public, max-age=31536000, immutable" if unchanging else "public, max-age=60"
    return Response(found[1], media_type=f"image/{kind.lower()}", headers={"cache-control": kept})


def _picture(state: AppState, item_id: str, limit: int) -> tuple[StoredItem, bytes] | None:
    item = state.store.items.get([item_id]).get(item_id)
    if item is None or item.deleted or item.picture is None:
        return None
    with suppress(BadPicture):
        return item, state.store.items.read_picture(item.picture, limit)
    return None


_Show = Callable[[Visit], Awaitable[Response]]
_ROUTES: Sequence[tuple[str, str, _Show]] = (
    ("GET", SHOP, home),
    ("GET", f"{SHOP}/category", category),
    ("GET", f"{SHOP}/search", search),
    ("POST", f"{SHOP}/search", search_by_picture),
    ("GET", f"{SHOP}/item", product),
    ("GET", f"{SHOP}/cart", cart),
    ("POST", f"{SHOP}/cart", change_cart),
    ("POST", f"{SHOP}/view", change_view),
    ("GET", f"{SHOP}/picture", lambda visit: picture(visit.state, visit.asked)),
)


def add_shop_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``."""

    async def answer(request: Request, show: _Show) -> Response:
        return await show(Visit(request, state_of()))

    for method, path, show in _ROUTES:
        app.add_route(path, partial(answer, show=show), methods=[method], include_in_schema=False)
