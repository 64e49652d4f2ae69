"""HTTP routes of the gateway, except those of products.

They use FastAPI's routing and description only. The middleware answers errors, and the routes read
a body's bytes: FastAPI's dependencies, exit stacks, telemetry and exception handlers would cost as
much as everything else that a request needs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi.utils import generate_unique_id
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from newshelf.catalog.schema import Id
from newshelf.config import GatewaySettings
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
from newshelf.gateway.admin import add_admin_routes
from newshelf.gateway.console import add_console_routes
from newshelf.gateway.context import context_of, json_response, read_body
from newshelf.gateway.items import add_items_routes
from newshelf.gateway.keys import KeyAccess, KeyFile
from newshelf.gateway.middleware import Middleware
from newshelf.gateway.observability import GatewayMetrics, RequestLog, make_spans
from newshelf.gateway.open_inference import add_open_inference_routes
from newshelf.gateway.openapi import NOT_NOW, REFUSED, add_docs_page, body_of, describe, errors_of
from newshelf.gateway.pages import add_page_files, page_paths
from newshelf.gateway.record import Record, open_record, spool_of
from newshelf.gateway.schemas import (
    Alive,
    FeedbackEvent,
    FeedbackIn,
    FeedbackOut,
    Ready,
    RecommendIn,
    RecommendOut,
    RolloutOut,
    RolloutsOut,
    SearchBody,
    SearchOut,
    SimilarIn,
    parse_recommend_body,
    parse_search_body,
    parse_similar_body,
    path_id,
    read_table,
)
from newshelf.gateway.shop import add_shop_routes
from newshelf.gateway.state import AppState, Parse, open_state
from newshelf.gateway.upstream import Reply
from newshelf.server.program import GatewayPlan
from newshelf.serving.schemas import (
    EncoderAnswer,
    EncoderInstances,
    EncoderProduct,
    InstancesAnswer,
    validate,
)
from newshelf.store.store import EventStore
from newshelf.store.units import Erasure, UnitRecord


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
    async def merge_units(request: Request) -> Response:
        """Merge a visitor into the unit that has logged in. Merging again changes nothing."""
        state = state_of()
        merge = validate(MergeIn, read_table(*await read_body(request)))
        visitor, unit = map(state.recommender.pseudonym, (merge.visitor, merge.unit))
        await asyncio.to_thread(state.store.units.merge, visitor, unit)
        state.recommender.histories.drop([unit])
        return json_response(merge.model_dump())

    @app.get("/v1/units/{unit:path}", response_model=UnitRecord, responses={**REFUSED, **NOT_NOW})
    async def show_unit(request: Request) -> Response:
        """Return everything that is kept about a unit."""
        state = state_of()
        unit = state.recommender.pseudonym(path_id(request, "unit"))
        return json_response(await asyncio.to_thread(state.store.units.show, unit))

    @app.delete("/v1/units/{unit:path}", response_model=Erasure, responses={**REFUSED, **NOT_NOW})
    async def erase_unit(request: Request) -> Response:
        """Erase everything about a unit, and refuse its later events. Takes some seconds."""
        state = state_of()
        unit = state.recommender.pseudonym(path_id(request, "unit"))
        erased = await asyncio.to_thread(state.store.units.erase, unit)
        state.recommender.histories.drop([unit])
        return json_response(erased)


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        scope["app"] = self
        await self.router(scope, receive, send)


_DESCRIPTION = "/openapi.json"
_CLOSED = GatewaySettings()
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(
    state_of: Callable[[], AppState], lifespan: Lifespan, settings: GatewaySettings = _CLOSED
) -> FastAPI:
    """Return the application without its middleware; it begins with ``lifespan``."""
    app = PlainApp(
        title="Newshelf",
        version="1",
        description="Recommendations for a shop's front end.",
        lifespan=lifespan,
        openapi_url=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        # Names of the methods of generated clients.
        generate_unique_id_function=lambda route: (
            route.name if route.path.startswith("/v1/") else generate_unique_id(route)
        ),
    )
    app.router.route_class = PlainRoute
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    _add_recommendations(app, state_of)
    _add_feedback(app, state_of)
    add_items_routes(app, state_of)
    add_units_routes(app, state_of)
    add_admin_routes(app, state_of)
    add_open_inference_routes(app, state_of)
    _add_monitoring(app, state_of)
    add_docs_page(app, _DESCRIPTION)
    if settings.shop.enabled == "always":
        add_shop_routes(app, state_of)
    if settings.console.enabled == "always":
        add_console_routes(app, state_of)
    if page_paths(settings):
        add_page_files(app)
    return app


def paths_of(app: FastAPI) -> set[str]:
    """Return the paths of its routes."""
    return {route.path_format for route in app.routes if isinstance(route, Route)}


def _add_recommendations(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    async def answer(request: Request, parse_body: Parse) -> Response:
        body, context = await read_body(request), context_of(request)
        return _response(await state_of().recommend(parse_body, *body, context))

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
        body, context = await read_body(request), context_of(request)
        return _response(await state_of().encode(*body, context))


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
        body, context = await read_body(request), context_of(request)
        return _response(await state_of().feedback(*body, context))


def _add_monitoring(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    @app.get(
        "/v1/rollouts",
        response_model=RolloutsOut,
        responses=errors_of(Unauthorized, Forbidden, RateLimited),
    )
    async def rollouts(_request: Request) -> Response:
        """Return the current rollouts."""
        router = state_of().recommender.router
        splits = router.current.splits
        rows = [RolloutOut.model_validate(one, from_attributes=True) for one in splits]
        return json_response(RolloutsOut(rollouts=rows, age_s=round(router.age_s, 3)))

    @app.get("/healthz", response_model=Alive)
    async def healthz(_request: Request) -> Response:
        """Return 200 while the process runs. Needs no key."""
        return json_response(Alive())

    @app.get(
        "/readyz",
        response_model=Ready,
        response_model_exclude_none=True,
        responses=errors_of(Unavailable),
    )
    async def readyz(request: Request) -> Response:
        """Return 200 if shoppers get answers; with ``?strict``, if all models answer. No key."""
        state, strict = state_of(), "strict" in request.query_params
        readiness = state.strict_readiness if strict else state.readiness
        missing = await readiness.missing(context_of(request).deadline)
        unanswered = "recommender" in missing and not len(state.recommender.fallback)
        if missing and (unanswered or strict):
            raise Unavailable("; ".join(f"{model}: {why}" for model, why in missing.items()))
        answer = Ready(missing=missing, spooled=state.readiness.spooled())
        return json_response(answer.model_dump(exclude_none=True))

    @app.get("/metrics", response_class=Response, responses=errors_of(Unauthorized, Forbidden))
    async def metrics(request: Request) -> Response:
        """Return Prometheus metrics of all processes behind this port."""
        page = await state_of().metrics_page(context_of(request).deadline)
        return Response(page, media_type=CONTENT_TYPE_LATEST)


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


def make_worker(plan: GatewayPlan, *, store: OpenStore = open_store) -> ASGIApp:
    """Return the application that uvicorn serves in each process."""
    settings = plan.settings
    log = RequestLog(sys.stderr, everything=settings.log_requests)
    access = KeyAccess(KeyFile(plan.api_keys), settings.public_rate_per_s)
    metrics = GatewayMetrics()
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

    app = make_app(lambda: opened[0], lifespan, settings)
    guarded = Middleware(
        app,
        access=access,
        metrics=metrics,
        spans=spans,
        log=log,
        settings=settings,
        routes=paths_of(app),
    )
    if not settings.allowed_origins:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=settings.allowed_origins,
        allow_methods=["POST"],
        allow_headers=["Authorization"],
        expose_headers=["Retry-After", "X-Request-Id"],
    )
