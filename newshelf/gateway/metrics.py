"""What Prometheus is told of the gateway.

Several processes share one page: each writes its numbers into files of one folder, which
prometheus-client adds up (its multiprocess mode, switched on by ``serve``).
"""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from newshelf.gateway.breaker import BreakerState

__all__ = ["MULTIPROCESS_FOLDER", "Metrics"]

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that prometheus-client reads."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class Metrics:
    """The numbers of one process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # Of its own, so that several gateways can live in one process.
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "newshelf_gateway_requests",
            "Answered requests.",
            ["route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "newshelf_gateway_request_seconds",
            "From a request's head to its whole answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.model_seconds = Histogram(
            "newshelf_gateway_model_seconds",
            "Waiting for a recommender.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.record_seconds = Histogram(
            "newshelf_gateway_record_seconds",
            "Waiting until an answer was written down.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._fallbacks = Counter(
            "newshelf_gateway_fallbacks",
            "Answered without a model.",
            ["reason"],
            registry=registry,
        )
        self.unrecorded = Counter(
            "newshelf_gateway_unrecorded",
            "Answers that could not be written down.",
            registry=registry,
        )
        self._feedback = Counter(
            "newshelf_gateway_feedback",
            "Events of feedback.",
            ["outcome"],
            registry=registry,
        )
        self._shadow = Counter(
            "newshelf_gateway_shadow",
            "Copies for a shadowed model.",
            ["outcome"],
            registry=registry,
        )
        self._breaker = Gauge(
            "newshelf_gateway_breaker",
            "0 closed, 1 half-open, 2 open: the version is left alone.",
            ["model", "version"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._record = Gauge(
            "newshelf_gateway_record",
            "0 in the event store, 1 in the spool, 2 refused.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._splits_age = Gauge(
            "newshelf_gateway_rollouts_age_seconds",
            "Since the rollouts were read from the store.",
            multiprocess_mode="livemax",
            registry=registry,
        )

        # Finding them by their labels costs more than counting.
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        found = self._children.get((route, status))
        if found is None:
            found = self._requests.labels(route, status), self._seconds.labels(route)
            self._children[route, status] = found
        count, histogram = found
        count.inc()
        histogram.observe(seconds)

    def fallback(self, reason: str) -> None:
        """Count one answer without a model; ``reason`` is an error's code."""
        self._fallbacks.labels(reason).inc()

    def feedback(self, outcome: str) -> None:
        """Count one event; ``outcome`` as it is answered."""
        self._feedback.labels(outcome).inc()

    def shadow(self, outcome: str) -> None:
        """Count one copy: ``answered``, ``failed`` or ``dropped``."""
        self._shadow.labels(outcome).inc()

    def look(
        self, breakers: dict[tuple[str, str], BreakerState], rollouts_age_s: float, record: int
    ) -> None:
        """Note what is not counted but looked at."""
        for (model, version), state in breakers.items():
            self._breaker.labels(model, version or "default").set(_STATES[state])
        self._splits_age.set(rollouts_age_s)
        self._record.set(record)

    def page(self) -> bytes:
        """What ``GET /metrics`` answers."""
        if MULTIPROCESS_FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
