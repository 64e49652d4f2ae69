"""The routes.

FastAPI's description of routes, without what it does around each request.

The guard answers errors, and the routes take a body's bytes: dependencies, exit stacks,
telemetry and exception handlers would cost as much as all else that a request needs.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from newshelf.errors import (
    BadPicture,
    Conflict,
    DeadlineExceeded,
    InvalidField,
    NotJson,
    RateLimited,
    RequestError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownItem,
    UnknownRequest,
    UnsupportedMedia,
)
from newshelf.gateway.context import SCOPE, RequestContext
from newshelf.gateway.openapi import DOCS, add_docs_page, body_of, describe, errors_of
from newshelf.gateway.record import take_feedback
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
    SimilarIn,
    parse_encode,
    parse_feedback,
    parse_recommend,
    parse_similar,
)
from newshelf.gateway.state import AppState
from newshelf.gateway.upstream import Reply
from newshelf.serving.schemas import (
    EncoderAnswer,
    EncoderInstances,
    EncoderProduct,
    InstancesAnswer,
)


class PlainRoute(APIRoute):
    """Documented like any other; its function makes the response from the request."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = answer


class PlainApp(FastAPI):
    """Has hot routes only, and leaves every error to whoever calls it."""

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
    "/v1/encode",
    "/v1/feedback",
    "/v1/rollouts",
    "/healthz",
    "/readyz",
    "/metrics",
    DOCS,
    _DESCRIPTION,
)
_LARGE = 64 * 1024
"""Bytes of a body that is parsed in a thread, next to the event loop."""
_REFUSED = errors_of(
    RequestError, NotJson, InvalidField, TooLarge, UnsupportedMedia, Unauthorized, RateLimited
)
_NOT_NOW = errors_of(Unavailable, DeadlineExceeded)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(parts: Callable[[], AppState], lifespan: Lifespan) -> FastAPI:
    """The application, without what ``Guard`` does for every request.

    Args:
        parts: what the routes use, once ``lifespan`` has begun.
        lifespan: opens and closes it.
    """
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
    _add_recommending(app, parts)
    _add_feedback(app, parts)
    _add_watching(app, parts)
    add_docs_page(app, _DESCRIPTION)
    return app


def _add_recommending(app: FastAPI, parts: Callable[[], AppState]) -> None:
    @app.post(
        "/v1/recommend",
        response_model=RecommendOut,
        responses={**_REFUSED, **errors_of(UnknownItem), **_NOT_NOW},
        openapi_extra=body_of(RecommendIn),
    )
    async def recommend(request: Request) -> Response:
        """Products for a shopper, by what is in the history."""
        asked = parse_recommend(await _body(request), _content_type(request))
        return _response(await parts().recommender.answer(asked, _call(request)))

    @app.post(
        "/v1/similar",
        response_model=RecommendOut,
        responses={**_REFUSED, **_NOT_NOW},
        openapi_extra=body_of(SimilarIn),
    )
    async def similar(request: Request) -> Response:
        """Products that go with one product."""
        asked = parse_similar(await _body(request), _content_type(request))
        return _response(await parts().recommender.answer(asked, _call(request)))

    @app.post(
        "/v1/encode",
        response_model=EncoderAnswer | InstancesAnswer,
        responses={**_REFUSED, **errors_of(InvalidField, BadPicture), **_NOT_NOW},
        openapi_extra=body_of(EncoderProduct, EncoderInstances),
    )
    async def encode(request: Request) -> Response:
        """The embedding and labels of a product: as JSON, a form, or a bare picture."""
        call, found = _call(request), parts()
        args = await _body(request), _content_type(request), found.limits
        large = len(args[0]) > _LARGE
        body = await asyncio.to_thread(parse_encode, *args) if large else parse_encode(*args)
        call.source = "model"
        return _response(await found.models.ask("encoder", "", body, call.deadline))


def _add_feedback(app: FastAPI, parts: Callable[[], AppState]) -> None:
    @app.post(
        "/v1/feedback",
        response_model=FeedbackOut,
        response_model_exclude_none=True,
        responses={**_REFUSED, **errors_of(UnknownRequest, Conflict), **_NOT_NOW},
        openapi_extra=body_of(FeedbackIn, FeedbackEvent),
    )
    async def feedback(request: Request) -> Response:
        """What shoppers did with products. Sending an event again is safe."""
        body, found = await _body(request), parts()
        events = parse_feedback(body, _content_type(request), max_value=found.max_value)
        found.access.count_events(_call(request).key, len(events))
        return _response(await take_feedback(events, found.recorder, found.metrics))


def _add_watching(app: FastAPI, parts: Callable[[], AppState]) -> None:
    @app.get(
        "/v1/rollouts",
        response_model=RolloutsOut,
        responses=errors_of(Unauthorized, RateLimited),
    )
    async def rollouts(_request: Request) -> Response:
        """The rollouts that are served now."""
        router = parts().router
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
        """Whether the process lives. Needs no key."""
        return _json(Alive())

    @app.get(
        "/readyz",
        response_model=Ready,
        response_model_exclude_none=True,
        responses=errors_of(Unavailable),
    )
    async def readyz(request: Request) -> Response:
        """Whether shoppers get an answer; with ``?strict``, from every model. Needs no key."""
        found = parts()
        missing = await found.readiness.missing(_call(request).deadline)
        unanswered = "recommender" in missing and not len(found.recommender.fallback)
        if missing and (unanswered or "strict" in request.query_params):
            raise Unavailable("; ".join(f"{model}: {why}" for model, why in missing.items()))
        return _json(Ready(missing=missing, spooled=found.readiness.spooled()))

    @app.get("/metrics", response_class=Response, responses=errors_of(Unauthorized))
    async def metrics(_request: Request) -> Response:
        """For Prometheus: the numbers of every process behind this port."""
        found = parts()
        found.look()
        return Response(found.metrics.page(), media_type=found.metrics.content_type)


def _call(request: Request) -> RequestContext:
    call: RequestContext = request.scope[SCOPE]
    return call


async def _body(request: Request) -> bytes:
    """The whole body, without the generator that ``request.body`` makes for each."""
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type=reply.content_type)
