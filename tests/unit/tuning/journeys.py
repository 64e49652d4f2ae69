"""Journeys whose every moment is known."""

from collections.abc import Callable

import pytest

from newshelf.serving.trace import BatchTrace, TraceSpan
from newshelf.tuning.profile import Journey

MakeJourney = Callable[..., Journey]
MS = 1_000_000


@pytest.fixture
def journey() -> MakeJourney:
    """2 ms there, a batch of 10 ms, 1 ms back."""

    def make(client: int = 0, sent_ms: int = 0, size: int = 1, worker: int = 77) -> Journey:
        start = (sent_ms + 2) * MS
        spans = (
            TraceSpan("parse", start, start + MS),
            TraceSpan("decode", start + MS, start + 3 * MS),
            TraceSpan("inference", start + 4 * MS, start + 8 * MS),
            TraceSpan("postprocess", start + 9 * MS, start + 10 * MS),
        )
        batch = BatchTrace(worker, size, start, start + 10 * MS, spans)
        return Journey(client, sent_ms * MS, batch, start + 11 * MS)

    return make
