"""Readiness: both models answer a prediction, and answers can be recorded."""

import asyncio
import time

import orjson

from newshelf.catalog.schema import ENCODABLE
from newshelf.errors import NewshelfError, Unavailable
from newshelf.gateway.models import ModelName, Models
from newshelf.gateway.record import WatchedRecorder
from newshelf.serving.deadline import Deadline

_REQUESTS: dict[ModelName, bytes] = {
    "encoder": orjson.dumps(ENCODABLE),
    "recommender": b'{"k":1}',
}
_OK = 200
_KEPT_S = 1.0


class Readiness:
    """Sends both models a request, at most once a second."""

    def __init__(self, models: Models, recorder: WatchedRecorder | None) -> None:
        self._models = models
        self._recorder = recorder
        self._until_s = 0.0
        self._missing: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def missing(self, deadline: Deadline) -> dict[str, str]:
        """Return the models that do not answer, each with the reason."""
        async with self._lock:
            if time.monotonic() >= self._until_s:
                reasons = await asyncio.gather(*(self._ask(m, deadline) for m in _REQUESTS))
                self._missing = {m: why for m, why in zip(_REQUESTS, reasons, strict=True) if why}
                self._until_s = time.monotonic() + _KEPT_S
        return self._missing

    def spooled(self) -> str | None:
        """Return why answers wait in the spool; ``Unavailable`` if nothing can be recorded."""
        if self._recorder is None:
            return None
        if self._recorder.refused is not None:
            raise Unavailable(f"nothing can be recorded: {self._recorder.refused}")
        return self._recorder.away

    async def _ask(self, model: ModelName, deadline: Deadline) -> str | None:
        try:
            reply = await self._models.ask(model, "", _REQUESTS[model], deadline)
        except NewshelfError as error:
            return error.message
        return None if reply.status == _OK else f"answered {reply.status}"
