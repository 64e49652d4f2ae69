"""Schemas of the gateway's requests and answers, and parsing of request bodies."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import orjson
import pybase64
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
)
from starlette.requests import Request

from newshelf.catalog.schema import Id
from newshelf.config import Limits
from newshelf.errors import InvalidField, RequestError, TooLarge, UnsupportedMedia
from newshelf.files import StrictModel
from newshelf.gateway.placements import NO_PLACEMENTS, Placements
from newshelf.serving.products import (
    FormBody,
    form_fields,
    open_envelope,
    parse_products,
    read_json,
)
from newshelf.serving.protocol import RawRequest
from newshelf.serving.requests import check_k, check_recommend, read_price, searched_product
from newshelf.serving.schemas import (
    STARTING_KINDS,
    Filters,
    Listing,
    RecommendedItem,
    RecommendRequest,
    Ref,
    SearchQuery,
    Selection,
    Understood,
    validate,
)
from newshelf.shelf.words import WordIndex
from newshelf.store.records import Feedback, FeedbackOutcome, FeedbackType

_MAX_EVENTS = 1_000
_MAX_ITEMS = 100
_MAX_PARTS = 100
"""Maximum number of a form's parts; a product has a tenth of it."""
_AHEAD = timedelta(minutes=5)
"""Tolerance for clocks that differ."""
_OLDEST = timedelta(days=366)
"""Older times come from clocks that were never set: the years 1, 1970, 2000."""
_JSON_PARTS = ("k", "filters", "exclude")
"""Parts of a form that are not text."""
_ID: TypeAdapter[str] = TypeAdapter(Id)


def _only_text(value: object) -> object:
    """Refuse values that pydantic reads as seconds or milliseconds since 1970."""
    if value is None or (isinstance(value, str) and "-" in value[1:]):
        return value
    raise ValueError("must be ISO 8601 with a time zone, such as 2026-03-01T12:00:00Z")


class RecommendIn(RecommendRequest):
    """A request for recommendations to a shopper."""

    unit: Id
    """Your own id of the shopper or anonymous visitor. The same unit gets the same variant of a
    running rollout."""
    items: Annotated[list[Ref], Field(min_length=1, max_length=_MAX_ITEMS)] | None = None
    """The products that ``similar``, ``bought_together`` and ``cart`` start from."""
    cursor: str | None = None
    """The last answer's, for its next page; empty for the first page of a feed."""


class _SimilarTo(BaseModel):
    unit: Id
    item: Ref


class SimilarIn(Selection, _SimilarTo):
    """A request for products similar to a given one."""


class SearchBody(Listing):
    """A search. It needs a text, an image, or both; a form may send the image as a file."""

    text: str | None = None
    """A sentence such as ``blue ring under 50``; what it states becomes filters."""
    image: str | None = None
    """The bytes of a JPEG, PNG, WebP or GIF in base64. URLs are never fetched."""
    unit: Id | None = None
    """Your own id of the shopper or anonymous visitor, whose history reranks what is found."""
    filters: Filters = Filters()
    """They replace what the sentence states on the same column, and are never relaxed."""
    cursor: str | None = None
    """The last answer's, for its next page; empty for the first page."""


class FeedbackEvent(StrictModel):
    """An action of a shopper on a product."""

    event_id: Id
    """Your own id; an event that is sent twice is stored once."""
    event_type: FeedbackType
    item_id: Id
    at: Annotated[AwareDatetime | None, BeforeValidator(_only_text)] = None
    """ISO 8601 with a time zone, at most a year ago; now by default."""
    request_id: Id | None = None
    """Id of the answer that showed the product."""
    unit: Id | None = None
    """Without a request_id: selects the unit's last answer that showed the product."""
    value: Annotated[float, Field(ge=0)] | None = None
    """Value of a purchase, in the shop's currency."""


class FeedbackIn(StrictModel):
    """Several events. A single one may be sent without the list."""

    events: Annotated[list[FeedbackEvent], Field(min_length=1, max_length=_MAX_EVENTS)]


@dataclass(frozen=True, slots=True)
class Invalid:
    """An invalid event or product among several."""

    id: str | None
    """None if it has no valid one."""
    error: RequestError


@dataclass(frozen=True, slots=True)
class RecommendQuery:
    """A checked request for recommendations."""

    unit: str
    """Empty for a search of nobody known."""
    request: RecommendRequest
    sent: Mapping[str, object]
    """The same as JSON for the model, without the unit."""
    cursor: str | None = None
    """None: the answer has no next page."""

    @property
    def body(self) -> bytes:
        """Return the request to the model."""
        return orjson.dumps(self.sent)

    def replaced(self, **fields: object) -> "RecommendQuery":
        """Return the query with other fields of the request, which must be valid."""
        request = self.request.model_copy(update=fields)
        sent = {
            name: value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
            for name, value in fields.items()
        }
        return replace(self, request=request, sent={**self.sent, **sent})


_NOT_SENT = {"unit", "user_id", "items", "item", "cursor"}
"""What the model does not need, and cannot reveal."""


def parse_recommend_body(
    body: bytes, content_type: str, limits: Limits, placements: Placements = NO_PLACEMENTS
) -> RecommendQuery:
    """Check the body of ``/v1/recommend``."""
    table = placements.completed(read_table(body, content_type))
    request = check_recommend(table, limits, RecommendIn)
    if request.search is not None:
        raise InvalidField("a search goes to /v1/search", field="search")
    sent = {name: table[name] for name in table if name not in _NOT_SENT}
    query = RecommendQuery(request.unit, request, sent, request.cursor)
    starts = request.kind in STARTING_KINDS
    if request.items is not None and not starts:
        raise InvalidField(f"{request.kind!r} starts from no products", field="items")
    if request.items is not None:
        sent["history"] = table["items"]
        return replace(query, request=request.model_copy(update={"history": request.items}))
    if starts and not request.history:
        raise InvalidField(f"{request.kind!r} needs the products it starts from", field="items")
    return query


def parse_similar_body(
    body: bytes, content_type: str, limits: Limits, placements: Placements = NO_PLACEMENTS
) -> RecommendQuery:
    """Check the body of ``/v1/similar``: the kind ``similar`` with one product."""
    table = placements.completed(read_table(body, content_type), without=("kind", "cursor"))
    request = check_k(validate(SimilarIn, table), limits)
    sent = {name: table[name] for name in table if name not in _NOT_SENT}
    sent |= {"kind": "similar", "history": [table["item"]]}
    fields = {name: getattr(request, name) for name in Selection.model_fields}
    asked = RecommendRequest.model_construct(history=[request.item], kind="similar", **fields)
    return RecommendQuery(request.unit, asked, sent)


def parse_search_body(
    body: bytes, content_type: str, limits: Limits, placements: Placements
) -> RecommendQuery:
    """Check the body of ``/v1/search``: JSON, a form, or a bare picture."""
    envelope = open_envelope(RawRequest(form_parts(body, content_type), content_type), limits)
    table = _form_table(envelope) if isinstance(envelope, FormBody) else envelope
    if isinstance(table, dict):
        table = placements.completed(table, without=("kind", "diversity", "explain"))
    asked = check_k(validate(SearchBody, table), limits)
    text = asked.text if asked.text and asked.text.strip() else None
    if text is None and asked.image is None:
        raise InvalidField("a search needs a text, an image, or both", field="text")
    if text is not None and len(text) > limits.max_text_chars:
        raise TooLarge(
            f"text has {len(text)} characters; at most {limits.max_text_chars} are accepted",
            field="text",
        )
    search = SearchQuery(text=text, image=asked.image)
    searched_product(search, limits)
    own = {name: getattr(asked, name) for name in Listing.model_fields}
    sent = asked.model_dump(include={*own}, exclude_unset=True)
    request = RecommendRequest(**own, search=search)
    sent["search"] = search.model_dump(exclude_none=True)
    return RecommendQuery(asked.unit or "", request, sent, asked.cursor)


async def with_hits(query: RecommendQuery, words: WordIndex | None) -> RecommendQuery:
    """Return the query with the products whose texts match its sentence."""
    search = query.request.search
    if search is None or search.text is None or words is None:
        return query
    text, _ = read_price(search.text)
    hits = await asyncio.to_thread(words.search, text)
    search = search.model_copy(update={"hits": hits})
    return query.replaced(search=search)


def _form_table(form: FormBody) -> dict[str, object]:
    fields = form_table(form)
    for name in _JSON_PARTS:
        if isinstance(value := fields.get(name), str):
            try:
                fields[name] = orjson.loads(value)
            except orjson.JSONDecodeError:
                raise InvalidField("this part of the form must be JSON", field=name) from None
    return fields


def parse_encode_body(body: bytes, content_type: str, limits: Limits) -> bytes:
    """Check the body of ``/v1/encode`` (JSON, a form, or a picture), and return it as JSON."""
    raw = RawRequest(form_parts(body, content_type), content_type)
    parse_products(raw, limits)
    envelope = open_envelope(raw, limits)
    if not isinstance(envelope, FormBody):
        return body
    return orjson.dumps(form_table(envelope))


def form_table(form: FormBody) -> dict[str, object]:
    """Return a form's fields as JSON would give them, with the picture in base64."""
    fields = form_fields(form)
    if form.image is not None:
        fields["image"] = pybase64.b64encode(form.image).decode()
    return fields


def form_parts(
    body: bytes, content_type: str, *, max_parts: int = _MAX_PARTS
) -> dict[str, bytes | bytearray]:
    """Return the parts of a form; another body as the part ``body``."""
    media, options = parse_options_header(content_type)
    boundary = options.get("boundary")
    if media != "multipart/form-data" or not boundary:
        return {"body": body}
    parts: dict[str, bytes | bytearray] = {}
    part = bytearray()
    try:
        with PushMultipartParser(boundary, max_segment_count=max_parts) as parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    repeated = f"[{len(parts)}]" if event.name in parts else ""
                    part = parts[f"{event.name}{repeated}"] = bytearray()
                elif event:
                    part += event
    except MultipartError as error:
        raise RequestError(f"the form cannot be read: {error.args[0]}") from None
    return parts


def parse_feedback_body(
    body: bytes, content_type: str, *, max_value: float = math.inf, public: bool = False
) -> list[Feedback | Invalid]:
    """Check the body of ``/v1/feedback``, which may come with a ``public`` key."""
    table = read_table(body, content_type)
    now = datetime.now(UTC)
    if "events" not in table:
        return [_event(table, "", now, max_value, public)]
    events = table["events"]
    if isinstance(events, list) and len(events) > _MAX_EVENTS:
        raise TooLarge(f"{len(events)} events; send at most {_MAX_EVENTS} at once", field="events")
    if not isinstance(events, list) or not events or len(table) > 1:
        events = validate(FeedbackIn, table).events
    parsed: list[Feedback | Invalid] = []
    for index, event in enumerate(events):
        try:
            parsed.append(_event(event, f"events[{index}]", now, max_value, public))
        except InvalidField as error:
            parsed.append(Invalid(id_of(event, "event_id"), error))
    return parsed


def id_of(value: object, field: str = "id") -> str | None:
    """Return the id in a JSON object, or another field; None if there is no valid one."""
    try:
        return _ID.validate_python(value.get(field) if isinstance(value, dict) else None)
    except ValidationError:
        return None


def path_id(request: Request, name: str) -> str:
    """Return the id in a path."""
    found = id_of(request.path_params, name)
    if found is None:
        raise InvalidField("an id has 1 to 200 characters, and no control characters", field=name)
    return found


def _event(table: object, at: str, now: datetime, max_value: float, public: bool) -> Feedback:
    event = validate(FeedbackEvent, table, at)
    at = at and f"{at}."
    if public:
        _check_public(event, at)
    if event.request_id is None and event.unit is None:
        raise InvalidField(
            "an event needs the request_id of the answer that showed the product, or a unit",
            field=f"{at}request_id",
        )
    if event.value is not None and event.event_type != "purchase":
        raise InvalidField("only a purchase has a value", field=f"{at}value")
    if event.value is not None and event.value > max_value:
        raise InvalidField(
            f"a purchase of {event.value:g} is above the limit of {max_value:g} "
            "(gateway.max_value); send it in the shop's currency",
            field=f"{at}value",
        )
    if event.at is not None and event.at > now + _AHEAD:
        raise InvalidField("this time is in the future", field=f"{at}at")
    if event.at is not None and event.at < now - _OLDEST:
        raise InvalidField("this time is more than a year ago", field=f"{at}at")
    moment = now if event.at is None else event.at.astimezone(UTC)
    return Feedback(**{**event.model_dump(), "at": moment})


def _check_public(event: FeedbackEvent, at: str) -> None:
    """Refuse what anybody could invent: all but actions on products that an answer has shown."""
    if event.request_id is None:
        reason = "with a public key, an event needs the request_id of the answer"
        raise InvalidField(reason, field=f"{at}request_id")
    if event.event_type == "purchase":
        reason = "purchases are sent by the shop's server, with a key that is not public"
        raise InvalidField(reason, field=f"{at}event_type")
    # Nobody takes the ids of the shop's own events.
    if not event.event_id.startswith(event.request_id):
        reason = "with a public key, an event_id begins with the request_id"
        raise InvalidField(reason, field=f"{at}event_id")


def read_table(body: bytes, content_type: str) -> dict[str, object]:
    """Return the object of a JSON body."""
    media = content_type.partition(";")[0].strip().lower()
    if media not in {"", "application/json"} and not media.endswith("+json"):
        raise UnsupportedMedia(f"content type {media[:100]!r} is not served; send application/json")
    value = read_json(body, content_type)
    if not isinstance(value, dict):
        raise InvalidField("expected a JSON object")
    return value


class RecommendOut(StrictModel):
    """At most ``k`` products, best first."""

    items: list[RecommendedItem]
    source: Literal["model", "fallback"]
    """``fallback``: the model did not answer, and these are popular products."""
    request_id: str
    """To be sent with feedback on these products."""
    ignored: Sequence[str] = ()
    """Ids of history or candidates that are not in the index; omitted if empty."""
    cursor: str | None = None
    """Of a feed, to be sent for the next page; omitted after the last one."""


class SearchOut(RecommendOut):
    """At most ``k`` products, best first; none if nothing passes the filters."""

    understood: Understood | None = None
    """How the sentence was read; omitted if the model did not answer."""


class EventResult(StrictModel):
    """The outcome of one event."""

    event_id: str | None
    """None if the event has no valid one."""
    outcome: FeedbackOutcome | Literal["invalid"]
    code: str | None = None
    """Code of the error if the event was not stored; omitted otherwise."""
    message: str | None = None
    field: str | None = None


class FeedbackOut(StrictModel):
    """One entry for each event, in the same order."""

    accepted: int
    """Number of events that are stored, including those that were stored before."""
    results: list[EventResult]


class RolloutOut(StrictModel):
    """A current rollout."""

    rollout: str
    control: str
    challenger: str
    share: Annotated[float, Field(ge=0, le=0.5)]
    """Share of the units in the challenger, and in control."""
    holdout: float
    shadow: bool
    interleave: bool


class RolloutsOut(StrictModel):
    """The current rollouts of this process."""

    rollouts: list[RolloutOut]
    age_s: float
    """Seconds since they were read from the store."""


class Alive(StrictModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(StrictModel):
    """Shoppers get answers, from the model or the fallback, and they are recorded."""

    status: Literal["ready"] = "ready"
    missing: dict[str, str]
    """Models that do not answer, each with the reason."""
    spooled: str | None = None
    """Why answers wait in the spool for the event store; omitted if they do not."""
