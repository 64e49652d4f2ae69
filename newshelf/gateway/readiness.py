"""Whether the models answer, of which a prediction is the only proof, and answers are recorded."""

import asyncio
import time

from newshelf.errors import Unavailable
from newshelf.gateway.deadline import Deadline
from newshelf.gateway.models import ModelName, Models
from newshelf.gateway.ports import WatchedRecorder

__all__ = ["Readiness"]

_QUESTIONS: dict[ModelName, bytes] = {
    "encoder": b'{"title":"ready?"}',
    "recommender": b'{"k":1}',
}
_KEPT_S = 1.0
_OK = 200


class Readiness:
    """Asks both models, at most once a second, whoever wants to know.

    Args:
        models: asked for their default versions.
        recorder: asked, too; None where answers need no record.
    """

    def __init__(self, models: Models, recorder: WatchedRecorder | None) -> None:
        self._models = models
        self._recorder = recorder
        self._until_s = 0.0
        self._missing: str | None = None
        self._asking = asyncio.Lock()

    async def check(self, deadline: Deadline) -> str | None:
        """Ask, unless it was asked just now.

        Returns:
            Why answers wait in the spool; None where they do not.

        Raises:
            Unavailable: a model does not answer, or nothing can be recorded.
        """
        async with self._asking:
            if time.monotonic() >= self._until_s:
                self._missing = await self._ask(deadline)
                self._until_s = time.monotonic() + _KEPT_S
        if self._missing is not None:
            raise Unavailable(self._missing)
        if self._recorder is None:
            return None
        if self._recorder.refused is not None:
            raise Unavailable(f"nothing can be recorded: {self._recorder.refused}")
        return self._recorder.away

    async def _ask(self, deadline: Deadline) -> str | None:
        for model, question in _QUESTIONS.items():
            try:
                reply = await self._models.ask(model, "", question, deadline)
            except Unavailable as error:
                return f"{model}: {error.message}"
            if reply.status != _OK:
                return f"{model} answered {reply.status}"
        return None
