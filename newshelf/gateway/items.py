"""Routes of the shop's products: batches, changes, removal, and the state of each."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newshelf.catalog.schema import READ_KINDS, Id, picture_kind
from newshelf.config import Limits
from newshelf.errors import BadPicture, InvalidField, NotJson, RequestError, TooLarge, UnknownItem
from newshelf.gateway.context import context_of, json_response, read_body
from newshelf.gateway.openapi import NOT_NOW, REFUSED, body_of, errors_of, parameter_of
from newshelf.gateway.schemas import Invalid, form_parts, id_of, path_id, read_table
from newshelf.gateway.state import AppState
from newshelf.serving.products import check_size, picture_from_base64, pixels_of, refuse_text
from newshelf.serving.schemas import validate
from newshelf.store.items import ItemColumns, ItemState, ItemWrite, StoredItem

_MOST = 1_000


class ItemIn(ItemColumns):
    """A product. Further columns, such as ``season``, are kept as attributes."""

    model_config = ConfigDict(extra="allow")

    image: str | None = None
    """The bytes of a JPEG, PNG, WebP or GIF in base64. URLs are never fetched."""


class ItemsIn(BaseModel):
    """Products to be stored, each as a whole. Each is checked, and may fail, on its own."""

    items: Annotated[list[ItemIn], Field(min_length=1, max_length=_MOST)]


class ItemPatch(ItemIn):
    """Fields to be changed; null removes one."""

    id: Id | None = None  # type: ignore[assignment]


class ItemResult(BaseModel):
    """The outcome of one product."""

    id: str | None
    """None if the product has no valid one."""
    outcome: Literal["stored", "invalid"]
    revision: int | None = None
    """Grows with each change; equal content is no change."""
    code: str | None = None
    """Code of the error if the product was not stored; omitted otherwise, as the next two."""
    message: str | None = None
    field: str | None = None


class ItemsOut(BaseModel):
    """One entry for each product, in the same order."""

    accepted: int
    """Number of products that are stored."""
    results: list[ItemResult]


class ItemOut(ItemColumns):
    """A stored product."""

    revision: int
    deleted: bool
    updated_at: datetime
    picture: str | None = None
    """``sha256:HEX``; ``file`` for one of the catalogue; omitted without a picture."""
    versions: Sequence[ItemState] = ()
    """Whether each served model version has encoded it, and its workers answer with it."""


class ItemsPage(BaseModel):
    """Products in the order of their ids."""

    items: list[ItemOut]
    after: str | None = None
    """For the next page; omitted on the last."""


def add_items_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``."""
    refused = {**REFUSED, **errors_of(InvalidField, BadPicture), **NOT_NOW}
    unknown = {**refused, **errors_of(UnknownItem)}

    @app.post(
        "/v1/items", response_model=ItemsOut, responses=refused, openapi_extra=body_of(ItemsIn)
    )
    async def put_items(request: Request) -> Response:
        """Store up to 1,000 products: JSON, or a form with the part ``items`` and pictures."""
        state, (body, kind) = state_of(), await read_body(request)
        parsed = await asyncio.to_thread(parse_items_body, body, kind, state.plan.limits)
        context_of(request).count(state.access, "items", len(parsed))
        writes = [item for item in parsed if isinstance(item, ItemWrite)]
        stored = iter(await asyncio.to_thread(state.store.items.put, writes))
        results = [_result(item, stored) for item in parsed]
        if not writes:
            raise next(item.error for item in parsed if isinstance(item, Invalid))
        return json_response({"accepted": len(writes), "results": results})

    listed = {"parameters": [parameter_of("after"), parameter_of("limit", "integer")]}

    @app.get("/v1/items", response_model=ItemsPage, responses=refused, openapi_extra=listed)
    async def list_items(request: Request) -> Response:
        """Return products by id: ``?after=ID&limit=100``."""
        after, limit = request.query_params.get("after", ""), request.query_params.get("limit")
        wanted = _limit(limit) if limit is not None else 100
        items = await asyncio.to_thread(state_of().store.items.page, after, wanted)
        table: dict[str, object] = {"items": [_shown(item) for item in items]}
        return json_response(table | ({"after": items[-1].id} if len(items) == wanted else {}))

    @app.get("/v1/items/{id:path}", response_model=ItemOut, responses=unknown)
    async def show_item(request: Request) -> Response:
        """Return a product, and how far each served model version is with it."""
        item_id, items = path_id(request, "id"), state_of().store.items
        states = await asyncio.to_thread(items.states, item_id)
        found = await asyncio.to_thread(items.get, [item_id])
        return json_response(_shown(found[item_id]) | {"versions": states})

    @app.patch(
        "/v1/items/{id:path}",
        response_model=ItemOut,
        responses=unknown,
        openapi_extra=body_of(ItemPatch),
    )
    async def patch_item(request: Request) -> Response:
        """Change some fields of a product."""
        item_id, state = path_id(request, "id"), state_of()
        body, kind = await read_body(request)
        context_of(request).count(state.access, "items", 1)

        def change() -> StoredItem:
            fields = _read(body, kind)
            picture = _picture(fields, state.plan.limits, "image")
            sent = _folded(fields) | ({"image": None} if "image" in fields else {})
            return state.store.items.patch(item_id, sent, picture)

        return json_response(_shown(await asyncio.to_thread(change)))

    @app.delete("/v1/items/{id:path}", response_model=ItemOut, responses=unknown)
    async def delete_item(request: Request) -> Response:
        """Delete a product; a deleted one stays as it is."""
        item_id, state = path_id(request, "id"), state_of()
        context_of(request).count(state.access, "items", 1)
        return json_response(_shown(await asyncio.to_thread(state.store.items.delete, item_id)))


def parse_items_body(body: bytes, content_type: str, limits: Limits) -> list[ItemWrite | Invalid]:
    """Check the body of ``POST /v1/items``: JSON, or a form."""
    pictures: dict[str, bytes | bytearray] = {}
    if content_type.lower().startswith("multipart/form-data"):
        pictures = form_parts(body, content_type, max_parts=_MOST + 1)
        body, content_type = bytes(pictures.pop("items", b"")), ""
    table = _read(body, content_type)
    items = table.get("items")
    if not isinstance(items, list) or not items or len(table) > 1:
        raise InvalidField('expected {"items": [product, …]}', field="items")
    if len(items) > _MOST:
        raise TooLarge(f"{len(items)} products; send at most {_MOST} at once", field="items")
    parsed = [_item(item, f"items[{i}]", limits, pictures) for i, item in enumerate(items)]
    if unused := pictures.keys() - {id_of(item) for item in items}:
        raise InvalidField("this picture's part is named by no product's id", field=min(unused))
    return parsed


def _item(
    value: object, at: str, limits: Limits, pictures: Mapping[str, bytes | bytearray]
) -> ItemWrite | Invalid:
    try:
        if not isinstance(value, dict):
            raise InvalidField("expected a JSON object", field=at)
        columns = _columns(_folded(value), at)
        picture = _picture(value, limits, f"{at}.image", pictures.get(columns.id))
        if picture is None and not columns.text():
            raise InvalidField("a product needs a title, a description or an image", field=at)
    except RequestError as error:
        return Invalid(id_of(value), error)
    return ItemWrite(columns, picture)


def _columns(fields: dict[str, Any], at: str) -> ItemColumns:
    try:
        return validate(ItemColumns, fields, at)
    except InvalidField as error:
        cause = error.__cause__
        where = cause.errors()[0]["loc"] if isinstance(cause, ValidationError) else ()
        if len(where) > 1 and where[0] == "attributes":
            # pydantic's path continues with the types that a value may have.
            raise InvalidField(
                f"{where[1]!r} is no column, so it is kept as an attribute, whose name has up to "
                "100 characters and whose value is a text or a number",
                field=f"{at}.{where[1]}"[:200],
            ) from error
        raise


def _folded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the product's columns; further ones are among its attributes."""
    own = {name: fields[name] for name in ItemColumns.model_fields if name in fields}
    further = {name: fields[name] for name in fields if name not in ItemIn.model_fields}
    attributes = own.get("attributes", {})
    if further and isinstance(attributes, dict):
        own["attributes"] = {**attributes, **further}
    return own


def _picture(
    fields: Mapping[str, Any], limits: Limits, field: str, part: bytes | bytearray | None = None
) -> bytes | None:
    """Return the bytes of a picture whose header is sound."""
    image = fields.get("image")
    if part is None and image is None:
        return None
    try:
        if part is not None:
            data = bytes(part)
        elif isinstance(image, str):
            data = picture_from_base64(image, limits.max_picture_bytes)
        else:
            raise InvalidField("must be the picture's bytes in base64")
        check_size(data, limits.max_picture_bytes)
        refuse_text(data)
        kind, pixels = picture_kind(data), pixels_of(data)
        if kind not in READ_KINDS:
            wanted = ", ".join(READ_KINDS)
            raise BadPicture(f"this is {kind or 'no picture'}; send one of {wanted}")
        if not pixels:
            raise BadPicture("the picture's header is damaged, or states too many pixels")
        if pixels > limits.max_pixels:
            raise TooLarge(f"{pixels} pixels; at most {limits.max_pixels} are accepted")
    except RequestError as error:
        error.field = field
        raise
    return data


def _read(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the object of a JSON body; ``NaN`` is read, so that its field is named."""
    try:
        return read_table(body, content_type)
    except NotJson:
        if b"NaN" not in body and b"Infinity" not in body:
            raise
        try:
            table = json.loads(body)
            # Python takes halves of surrogate pairs, which no text has.
            orjson.dumps(table)
        except (ValueError, TypeError, RecursionError):
            table = None
        if not isinstance(table, dict):
            raise
        return table


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidField(f"must be a number from 1 to {_MOST}", field="limit")
    return int(text)


def _result(item: ItemWrite | Invalid, stored: Any) -> dict[str, object]:
    if isinstance(item, Invalid):
        return {"id": item.id, "outcome": "invalid", **item.error.body()}
    return {"id": item.columns.id, "outcome": "stored", "revision": next(stored).revision}


def _shown(item: StoredItem) -> dict[str, object]:
    columns = item.columns.model_dump(exclude_defaults=True)
    table = {"revision": item.revision, "deleted": item.deleted, "updated_at": item.updated_at}
    picture = item.picture and ("file" if item.picture.startswith("file:") else item.picture)
    return {**columns, **table, **({"picture": picture} if picture else {})}
