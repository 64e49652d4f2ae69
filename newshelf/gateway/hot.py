"""FastAPI's description of routes, without what it does around each request.

The guard answers errors, and the routes take a body's bytes: dependencies, exit stacks,
telemetry and exception handlers would cost as much as all else that a request needs.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

__all__ = ["HotRoute", "PlainApp"]


class HotRoute(APIRoute):
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
        self.router.route_class = HotRoute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        scope["app"] = self
        await self.router(scope, receive, send)
