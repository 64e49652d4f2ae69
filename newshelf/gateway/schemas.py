"""The bodies of requests, checked; what the model needs of them, put together.

What the gateway answers, as data: the shapes that ``/openapi.json`` tells of.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import orjson
import pybase64
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from newshelf.catalog.schema import Id
from newshelf.config import Limits
from newshelf.errors import InvalidField, RequestError, TooLarge, UnsupportedMedia
from newshelf.serving.envelope import FormBody, form_fields, open_envelope, read_json
from newshelf.serving.products import parse_products
from newshelf.serving.protocol import RawRequest
from newshelf.serving.requests import check_k, check_recommend
from newshelf.serving.schemas import RecommendedItem, RecommendRequest, Ref, Selection, validate
from newshelf.store.records import Feedback, FeedbackOutcome, FeedbackType

_MAX_EVENTS = 1_000
_MAX_PARTS = 100
"""Of a form; a product has a tenth of it."""
_AHEAD = timedelta(minutes=5)
"""Clocks differ; a day ahead is a mistake."""
_OLDEST = timedelta(days=366)
"""Before it are the moments of clocks that were never set: the years 1, 1970, 2000."""
_ID: TypeAdapter[str] = TypeAdapter(Id)


def _only_text(value: object) -> object:
    """Refuse what pydantic takes for seconds or milliseconds since 1970."""
    if value is None or (isinstance(value, str) and "-" in value[1:]):
        return value
    raise ValueError("must be ISO 8601 with a time zone, such as 2026-03-01T12:00:00Z")


class RecommendIn(RecommendRequest):
    """A request for recommendations to a shopper."""

    unit: Id
    """The shopper, or the visitor without a name: your own id. Who has the same unit sees the
    same variant of a running rollout."""


class _SimilarTo(BaseModel):
    unit: Id
    item: Ref


class SimilarIn(Selection, _SimilarTo):
    """A request for products similar to a given one."""

    def as_recommend(self) -> RecommendRequest:
        """Return the same as a request with a history of one product."""
        fields = {name: getattr(self, name) for name in Selection.model_fields}
        return RecommendRequest.model_construct(history=[self.item], **fields)


class FeedbackEvent(BaseModel):
    """Something that a shopper did with a product."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: Id
    """Your own; the same event sent twice is kept once."""
    event_type: FeedbackType
    item_id: Id
    at: Annotated[AwareDatetime | None, BeforeValidator(_only_text)] = None
    """ISO 8601 with a time zone, at most a year ago; now, if it is left out."""
    request_id: Id | None = None
    """Of the answer that showed the product."""
    unit: Id | None = None
    """Without a request_id: the unit's last answer that showed the product is found."""
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of a purchase, in the shop's currency."""


class FeedbackIn(BaseModel):
    """Several events. One may be sent without the list around it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: Annotated[list[FeedbackEvent], Field(min_length=1, max_length=_MAX_EVENTS)]


@dataclass(frozen=True, slots=True)
class InvalidEvent:
    """An event among several that is refused by itself."""

    event_id: str | None
    """None where it has no valid one."""
    error: InvalidField


@dataclass(frozen=True, slots=True)
class RecommendQuery:
    """A request for recommendations."""

    unit: str
    request: RecommendRequest
    body: bytes
    """What the model is sent: all but the unit."""


def parse_recommend_body(body: bytes, content_type: str, limits: Limits) -> RecommendQuery:
    """Check the body of ``/v1/recommend``.

    Raises:
        RequestError: the first problem, with its field.
    """
    table = _table(body, content_type)
    request = check_recommend(table, limits, RecommendIn)
    # The model needs neither, and cannot reveal what it does not know.
    sent = {name: table[name] for name in table if name not in {"unit", "user_id"}}
    return RecommendQuery(request.unit, request, orjson.dumps(sent))


def parse_similar_body(body: bytes, content_type: str, limits: Limits) -> RecommendQuery:
    """Check the body of ``/v1/similar``: a request with a history of one product.

    Raises:
        RequestError: the first problem, with its field.
    """
    table = _table(body, content_type)
    request = check_k(validate(SimilarIn, table), limits)
    sent = {name: table[name] for name in table if name not in {"unit", "item"}}
    sent["history"] = [table["item"]]
    return RecommendQuery(request.unit, request.as_recommend(), orjson.dumps(sent))


def parse_encode_body(body: bytes, content_type: str, limits: Limits) -> bytes:
    """Check the body of ``/v1/encode``: JSON, a form, or a bare picture.

    Returns:
        The same as JSON.

    Raises:
        RequestError: what is wrong, and with which field.
    """
    raw = RawRequest(_form_parts(body, content_type), content_type)
    parse_products(raw, limits)
    envelope = open_envelope(raw, limits)
    if not isinstance(envelope, FormBody):
        return body
    fields = form_fields(envelope)
    if envelope.image is not None:
        fields["image"] = pybase64.b64encode(envelope.image).decode()
    return orjson.dumps(fields)


def _form_parts(body: bytes, content_type: str) -> dict[str, bytes | bytearray]:
    """The parts of a form; a body of another kind as ``body``."""
    media, options = parse_options_header(content_type)
    boundary = options.get("boundary")
    if media != "multipart/form-data" or not boundary:
        return {"body": body}
    parts: dict[str, bytes | bytearray] = {}
    part = bytearray()
    try:
        with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
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
    body: bytes, content_type: str, now: datetime | None = None, *, max_value: float = math.inf
) -> list[Feedback | InvalidEvent]:
    """Check the body of ``/v1/feedback``.

    Args:
        body: JSON.
        content_type: of the body.
        now: instead of the clock's time.
        max_value: the largest plausible value of a purchase.

    Raises:
        RequestError: what is wrong with the only event, or with the list of events.
    """
    table = _table(body, content_type)
    now = now or datetime.now(UTC)
    if "events" not in table:
        return [_event(table, "", now, max_value)]
    events = table["events"]
    if isinstance(events, list) and len(events) > _MAX_EVENTS:
        raise TooLarge(f"{len(events)} events; send at most {_MAX_EVENTS} at once", field="events")
    if not isinstance(events, list) or not events or len(table) > 1:
        events = validate(FeedbackIn, table).events
    read: list[Feedback | InvalidEvent] = []
    for index, event in enumerate(events):
        try:
            read.append(_event(event, f"events[{index}]", now, max_value))
        except InvalidField as error:
            read.append(InvalidEvent(_id_of(event), error))
    return read


def _id_of(event: object) -> str | None:
    try:
        return _ID.validate_python(event.get("event_id") if isinstance(event, dict) else None)
    except ValidationError:
        return None


def _event(table: object, at: str, now: datetime, max_value: float) -> Feedback:
    event = validate(FeedbackEvent, table, at)
    at = at and f"{at}."
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
        raise InvalidField("this moment has not come yet", field=f"{at}at")
    if event.at is not None and event.at < now - _OLDEST:
        raise InvalidField("this moment is more than a year ago", field=f"{at}at")
    return Feedback(
        event_id=event.event_id,
        event_type=event.event_type,
        item_id=event.item_id,
        at=now if event.at is None else event.at.astimezone(UTC),
        request_id=event.request_id,
        unit=event.unit,
        value=event.value,
    )


def _table(body: bytes, content_type: str) -> dict[str, object]:
    media = content_type.partition(";")[0].strip().lower()
    if media not in {"", "application/json"} and not media.endswith("+json"):
        raise UnsupportedMedia(f"content type {media[:100]!r} is not served; send application/json")
    value = read_json(body, content_type)
    if not isinstance(value, dict):
        raise InvalidField("expected a JSON object")
    return value


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecommendOut(_Answer):
    """At most ``k`` products, best first."""

    items: list[RecommendedItem]
    source: Literal["model", "fallback"]
    """``fallback``: the model did not answer, and this is what is popular."""
    request_id: str
    """To be sent back with what the shopper does."""
    ignored: list[str] = []
    """Ids of history or candidates that the index does not know; left out when empty."""


class EventResult(_Answer):
    """What became of one event."""

    event_id: str | None
    """None where the event has no valid one."""
    outcome: FeedbackOutcome | Literal["invalid"]
    code: str | None = None
    """Of the error, where the event was not kept; left out otherwise."""
    message: str | None = None
    field: str | None = None


class FeedbackOut(_Answer):
    """One entry for each event, in the same order."""

    accepted: int
    """Those that are kept, now or since before."""
    results: list[EventResult]


class RolloutOut(_Answer):
    """A rollout that is served."""

    rollout: str
    control: str
    challenger: str
    share: Annotated[float, Field(ge=0, le=0.5)]
    """Of the units that see the challenger; as many are control."""
    holdout: float
    shadow: bool
    interleave: bool


class RolloutsOut(_Answer):
    """The rollouts that this process serves."""

    rollouts: list[RolloutOut]
    age_s: float
    """Since they were read from the store."""


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Answer):
    """Shoppers get an answer, from the model or from what is popular, and it is recorded."""

    status: Literal["ready"] = "ready"
    missing: dict[str, str]
    """Models that do not answer, with the reason."""
    spooled: str | None = None
    """Why answers wait in the spool for the event store; left out while they do not."""
