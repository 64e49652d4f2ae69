"""HTTP routes of the gateway, except those of products.

They use FastAPI's routing and description only. The middleware answers errors, and the routes read
a body's bytes: FastAPI's dependencies, exit stacks, telemetry and exception handlers would cost as
much as everything else that a request needs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from newshelf.catalog.schema import Id
from newshelf.errors import (
    BadPicture,
    Conflict,
    ErasedUnit,
    Forbidden,
    InvalidField,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnknownItem,
    UnknownRequest,
)
from newshelf.files import StrictModel
from newshelf.gateway.context import context_of, json_response, read_body
from newshelf.gateway.histories import stored_event
from newshelf.gateway.items import add_items_routes
from newshelf.gateway.keys import KeyAccess, KeyFile
from newshelf.gateway.middleware import Middleware
from newshelf.gateway.observability import GatewayMetrics, RequestLog, make_spans
from newshelf.gateway.openapi import (
    DOCS,
    NOT_NOW,
    REFUSED,
    add_docs_page,
    body_of,
    describe,
    errors_of,
)
from newshelf.gateway.record import Record, open_record, spool_of, take_feedback
from newshelf.gateway.schemas import (
    Alive,
    FeedbackEvent,
    FeedbackIn,
    FeedbackOut,
    Ready,
    RecommendIn,
    RecommendOut,
    RecommendQuery,
    RolloutOut,
    RolloutsOut,
    SearchBody,
    SearchOut,
    SimilarIn,
    parse_encode_body,
    parse_feedback_body,
    parse_recommend_body,
    parse_search_body,
    parse_similar_body,
    read_table,
    with_hits,
)
from newshelf.gateway.state import AppState, open_state
from newshelf.gateway.upstream import Reply
from newshelf.server.gateway import GatewayPlan
from newshelf.serving.schemas import (
    EncoderAnswer,
    EncoderInstances,
    EncoderProduct,
    InstancesAnswer,
    validate,
)
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore
from newshelf.store.units import Erasure, UnitRecord

_ID: TypeAdapter[str] = TypeAdapter(Id)


class MergeIn(StrictModel):
    """A visitor who has logged in."""

    visitor: Id
    unit: Id
    """What the visitor did belongs to this unit's history from now on."""


def add_units_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``."""

    @app.post(
        "/v1/units/merge",
        response_model=MergeIn,
        responses={**REFUSED, **errors_of(Conflict, ErasedUnit), **NOT_NOW},
        openapi_extra=body_of(MergeIn),
    )
    async def merge(request: Request) -> Response:
        """Merge a visitor into the unit that has logged in. Merging again changes nothing."""
        state = state_of()
        merge = validate(MergeIn, read_table(*await read_body(request)))
        visitor, unit = map(state.recommender.pseudonym, (merge.visitor, merge.unit))
        await asyncio.to_thread(state.store.units.merge, visitor, unit)
        state.recommender.histories.drop([unit])
        return json_response(merge.model_dump())

    @app.get("/v1/units/{unit:path}", response_model=UnitRecord, responses={**REFUSED, **NOT_NOW})
    async def show(request: Request) -> Response:
        """Return everything that is kept about a unit."""
        state = state_of()
        return json_response(await asyncio.to_thread(state.store.units.show, _unit(request, state)))

    @app.delete("/v1/units/{unit:path}", response_model=Erasure, responses={**REFUSED, **NOT_NOW})
    async def erase(request: Request) -> Response:
        """Erase everything about a unit, and refuse its later events. Takes some seconds."""
        state = state_of()
        unit = _unit(request, state)
        erased = await asyncio.to_thread(state.store.units.erase, unit)
        state.recommender.histories.drop([unit])
        return json_response(erased)


def _unit(request: Request, state: AppState) -> str:
    try:
        return state.recommender.pseudonym(_ID.validate_python(request.path_params["unit"]))
    except ValidationError as error:
        raise InvalidField(error.errors()[0]["msg"], field="unit") from None


class PlainRoute(APIRoute):
    """A documented route whose function takes the request and returns the response."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = answer


class PlainApp(FastAPI):
    """An application of plain routes, which lets every error reach its caller."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.router.route_class = PlainRoute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        scope["app"] = self
        await self.router(scope, receive, send)


_DESCRIPTION = "/openapi.json"
ROUTES = (
    "/v1/recommend",
    "/v1/similar",
    "/v1/search",
    "/v1/encode",
    "/v1/feedback",
    "/v1/items",
    "/v1/items/{id}",
    "/v1/units/merge",
    "/v1/units/{unit}",
    "/v1/rollouts",
    "/healthz",
    "/readyz",
    "/metrics",
    DOCS,
    _DESCRIPTION,
)
_LARGE = 64 * 1024
"""Bodies with more bytes are parsed in a thread."""
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(state_of: Callable[[], AppState], lifespan: Lifespan) -> FastAPI:
    """Return the application without its middleware; it begins with ``lifespan``."""
    app = PlainApp(
        title="Newshelf",
        version="1",
        description="Recommendations for a shop's front end.",
        lifespan=lifespan,
        openapi_url=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    _add_recommendations(app, state_of)
    _add_feedback(app, state_of)
    add_items_routes(app, state_of)
    add_units_routes(app, state_of)
    _add_monitoring(app, state_of)
    add_docs_page(app, _DESCRIPTION)
    return app


def _add_recommendations(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    async def answer(request: Request, parse_body: Callable[..., RecommendQuery]) -> Response:
        state = state_of()
        sent, content_type = await read_body(request)
        parse = partial(parse_body, sent, content_type, state.plan.limits, state.placements)
        query = await asyncio.to_thread(parse) if len(sent) > _LARGE else parse()
        query = await with_hits(query, state.words)
        return _response(await state.recommender.answer(query, context_of(request)))

    @app.post(
        "/v1/recommend",
        response_model=RecommendOut,
        responses={**REFUSED, **errors_of(UnknownItem), **NOT_NOW},
        openapi_extra=body_of(RecommendIn),
    )
    async def recommend(request: Request) -> Response:
        """Recommend products to a shopper, by the history."""
        return await answer(request, parse_recommend_body)

    @app.post(
        "/v1/similar",
        response_model=RecommendOut,
        responses={**REFUSED, **NOT_NOW},
        openapi_extra=body_of(SimilarIn),
    )
    async def similar(request: Request) -> Response:
        """Recommend products similar to a product."""
        return await answer(request, parse_similar_body)

    @app.post(
        "/v1/search",
        response_model=SearchOut,
        responses={**REFUSED, **errors_of(InvalidField, BadPicture), **NOT_NOW},
        openapi_extra=body_of(SearchBody),
    )
    async def search(request: Request) -> Response:
        """Find products by a sentence, a picture, or both, sent as JSON or a form."""
        return await answer(request, parse_search_body)

    @app.post(
        "/v1/encode",
        response_model=EncoderAnswer | InstancesAnswer,
        responses={**REFUSED, **errors_of(InvalidField, BadPicture), **NOT_NOW},
        openapi_extra=body_of(EncoderProduct, EncoderInstances),
    )
    async def encode(request: Request) -> Response:
        """Return embedding and labels of a product, sent as JSON, a form, or a bare picture."""
        context, state = context_of(request), state_of()
        sent, content_type = await read_body(request)
        parse = partial(parse_encode_body, sent, content_type, state.plan.limits)
        body = await asyncio.to_thread(parse) if len(sent) > _LARGE else parse()
        context.source = "model"
        return _response(await state.recommender.models.ask("encoder", "", body, context.deadline))


def _add_feedback(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    @app.post(
        "/v1/feedback",
        response_model=FeedbackOut,
        response_model_exclude_none=True,
        responses={**REFUSED, **errors_of(UnknownRequest, Conflict, ErasedUnit), **NOT_NOW},
        openapi_extra=body_of(FeedbackIn, FeedbackEvent),
    )
    async def feedback(request: Request) -> Response:
        """Record what shoppers did with products. Sending an event again is safe."""
        (body, content_type), state = await read_body(request), state_of()
        service, max_value = state.recommender, state.plan.settings.max_value
        parsed = parse_feedback_body(body, content_type, max_value=max_value)
        key = context_of(request).key
        events = [stored_event(event, service.pseudonym, key) for event in parsed]
        state.access.count(key, "events", len(events))
        reply = await take_feedback(events, service.recorder, service.metrics)
        service.histories.drop(event.unit for event in events if isinstance(event, Feedback))
        return _response(reply)


def _add_monitoring(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    @app.get(
        "/v1/rollouts",
        response_model=RolloutsOut,
        responses=errors_of(Unauthorized, Forbidden, RateLimited),
    )
    async def rollouts(_request: Request) -> Response:
        """Return the current rollouts."""
        router = state_of().recommender.router
        fields = RolloutOut.model_fields
        return _json(
            RolloutsOut(
                rollouts=[
                    RolloutOut.model_validate({name: getattr(split, name) for name in fields})
                    for split in router.current
                ],
                age_s=round(router.age_s, 3),
            )
        )

    @app.get("/healthz", response_model=Alive)
    async def healthz(_request: Request) -> Response:
        """Return 200 while the process runs. Needs no key."""
        return _json(Alive())

    @app.get(
        "/readyz",
        response_model=Ready,
        response_model_exclude_none=True,
        responses=errors_of(Unavailable),
    )
    async def readyz(request: Request) -> Response:
        """Return 200 if shoppers get answers; with ``?strict``, if all models answer. No key."""
        state = state_of()
        missing = await state.readiness.missing(context_of(request).deadline)
        unanswered = "recommender" in missing and not len(state.recommender.fallback)
        if missing and (unanswered or "strict" in request.query_params):
            raise Unavailable("; ".join(f"{model}: {why}" for model, why in missing.items()))
        return _json(Ready(missing=missing, spooled=state.readiness.spooled()))

    @app.get("/metrics", response_class=Response, responses=errors_of(Unauthorized, Forbidden))
    async def metrics(_request: Request) -> Response:
        """Return Prometheus metrics of all processes behind this port."""
        return Response(state_of().metrics_page(), media_type=CONTENT_TYPE_LATEST)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type=reply.content_type)


OpenStore = Callable[[GatewayPlan], AbstractAsyncContextManager[tuple[Record, EventStore]]]


@asynccontextmanager
async def open_store(plan: GatewayPlan) -> AsyncIterator[tuple[Record, EventStore]]:
    """Open the event store and its recorder."""
    with EventStore.connect(plan.store_url) as store:
        async with open_record(store, spool_of(plan)) as record:
            yield record, store
            await store.units.disconnect()


def make_worker(plan: GatewayPlan, *, store: OpenStore = open_store) -> Middleware:
    """Return the application that uvicorn serves in each process."""
    settings = plan.settings
    log = RequestLog(sys.stderr, everything=settings.log_requests)
    access = KeyAccess(KeyFile(plan.api_keys))
    metrics = GatewayMetrics(plan.drift)
    spans = make_spans(settings.traces)
    opened: list[AppState] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            store(plan) as (recorder, opened_store),
            open_state(plan, access, metrics, spans, recorder, opened_store) as state,
        ):
            opened.append(state)
            yield
        log.flush()

    return Middleware(
        make_app(lambda: opened[0], lifespan),
        access=access,
        metrics=metrics,
        spans=spans,
        log=log,
        settings=settings,
        routes=ROUTES,
    )
