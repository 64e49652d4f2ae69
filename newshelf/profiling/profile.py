"""Profiles a running server: sends requests that ask for their spans, and keeps both ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.catalog import Catalog
from newshelf.errors import ServerError
from newshelf.load.requests import ModelName, draw_requests
from newshelf.load.run import LoadRequest, LoadResult, run_load
from newshelf.profiling.journey import Journey, journeys
from newshelf.profiling.queue import read_queue
from newshelf.server.client import Client
from newshelf.server.state import ServerState
from newshelf.serving.trace import SPANS_HEADER, TRACE_HEADER

__all__ = ["Profile", "profile"]

_FEWEST_WARM_UP = 20


@dataclass(frozen=True, eq=False)
class Profile:
    """What was measured."""

    model: ModelName
    clients: int
    load: LoadResult
    journeys: Sequence[Journey]
    queue_ms: float | None
    """Mean wait in TorchServe's queue, by its own count; None when it counted nothing."""

    @property
    def batch_size(self) -> float:
        """Of the batch that a request was in, on average."""
        return sum(one.batch.size for one in self.journeys) / len(self.journeys)


def profile(
    state: ServerState, catalog: Catalog, model: ModelName, *, requests: int, clients: int
) -> Profile:
    """Send ``requests`` from ``clients`` at a time, after a warm-up that is not kept.

    Raises:
        ServerError: a request failed, or the server tells no spans.
    """
    # One draw for both, so that the warm-up fills no cache with what is measured.
    warm_up = max(_FEWEST_WARM_UP, clients, requests // 10)
    drawn = draw_requests(model, catalog, warm_up + requests)
    with Client(state) as client:
        _send(client, state, drawn[:warm_up], clients)
        before = read_queue(client, model)
        load = _send(client, state, drawn[warm_up:], clients)
        queue_ms = read_queue(client, model).since(before)
    return Profile(model, clients, load, journeys(load.exchanges), queue_ms)


def _send(
    client: Client, state: ServerState, requests: Sequence[LoadRequest], clients: int
) -> LoadResult:
    load = run_load(
        state.inference_url,
        {**client.authorization(), TRACE_HEADER: "1"},
        requests,
        clients=clients,
        count=len(requests),
        kept_header=SPANS_HEADER,
    )
    if load.failures:
        raise ServerError(
            f"of {len(requests)} requests, some failed ({_told(load)}): with fewer --clients "
            f"the queue is not full; the server's log is {state.model_log}"
        )
    return load


def _told(load: LoadResult) -> str:
    return ", ".join(f"{kind}: {number}" for kind, number in load.failures.items())
