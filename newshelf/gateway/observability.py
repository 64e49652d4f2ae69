"""The log: one JSON object in each line of standard error.

No line holds a unit, a product, a body or a key; a request is told by its id.

What Prometheus is told of the gateway.

Several processes share one page: each writes its numbers into files of one folder, which
prometheus-client adds up (its multiprocess mode, switched on by ``serve``).

OpenTelemetry traces, where the settings ask for them.

One span for each request, with those of the model and of the record inside; a
``traceparent`` of the caller is gone on with. Spans hold no unit and no product.
"""

import asyncio
import importlib
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from newshelf.errors import SettingsError
from newshelf.gateway.context import RequestContext
from newshelf.gateway.models import BreakerState

_SERVER_ERROR = 500
_TOGETHER_S = 0.05
"""A write costs more than a line."""


class JsonLines(logging.Formatter):
    """``at``, ``level``, ``event`` and ``logger``, with the ``trace`` of a defect."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def set_up_log() -> None:
    """Send what this process logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Tells of each look at an unchanged schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)


class RequestLog:
    """A line about each answered request; those of a moment are written together.

    Args:
        out: where to.
        everything: also those that were answered without a fault of ours.
    """

    def __init__(self, out: TextIO, *, everything: bool) -> None:
        self._out = out
        self._everything = everything
        self._lines: list[bytes] = []

    def tell(self, call: RequestContext, method: str, route: str) -> None:
        """One request; to be called within a running event loop."""
        failed = call.status >= _SERVER_ERROR
        if not (failed or self._everything):
            return
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "error" if failed else "info",
            "event": "request",
            "request_id": call.request_id,
            "method": method,
            "route": route,
            "status": call.status,
            "duration_ms": round(call.spent_ms, 3),
            "key": call.key,
            "source": call.source,
            "version": call.version,
            "reason": call.reason,
        }
        self._lines.append(orjson.dumps(line))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Write what is there."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._out.write(b"\n".join([*lines, b""]).decode())
            self._out.flush()


MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that prometheus-client reads."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class GatewayMetrics:
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


_OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_NOTHING: AbstractContextManager[None] = nullcontext()


class Spans:
    """Makes no spans; costs next to nothing."""

    def request(self, route: str, parent: bytes | None) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Around a whole request; ``parent`` is its header ``traceparent``."""
        return _NOTHING

    def span(self, name: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Around a part of it."""
        return _NOTHING

    def note(self, **attributes: str | int) -> None:
        """Add to the request's span."""

    def close(self) -> None:
        """Send what is left."""


NO_SPANS = Spans()


def make_spans(kind: Literal["none", "console", "otlp"]) -> Spans:
    """What the setting ``gateway.traces`` asks for.

    Raises:
        SettingsError: the exporter is not installed.
    """
    if kind == "none":
        return NO_SPANS
    return _OpenTelemetry(_exporter(kind))


class _OpenTelemetry(Spans):
    def __init__(self, exporter: SpanExporter) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "newshelf-gateway"})
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("newshelf.gateway")
        self._propagator = TraceContextTextMapPropagator()

    def request(self, route: str, parent: bytes | None) -> AbstractContextManager[Any]:
        carrier = {} if parent is None else {"traceparent": parent.decode("latin-1")}
        return self._tracer.start_as_current_span(
            route, context=self._propagator.extract(carrier), kind=SpanKind.SERVER
        )

    def span(self, name: str) -> AbstractContextManager[Any]:
        return self._tracer.start_as_current_span(name)

    def note(self, **attributes: str | int) -> None:
        get_current_span().set_attributes(attributes)

    def close(self) -> None:
        self._provider.shutdown()


def _exporter(kind: Literal["console", "otlp"]) -> SpanExporter:
    if kind == "console":
        # One span in one line, beside the log's lines.
        return ConsoleSpanExporter(
            out=sys.stderr, formatter=lambda span: (span.to_json(indent=None) or "") + "\n"
        )
    try:
        module = importlib.import_module(_OTLP)
    except ImportError as error:
        raise SettingsError(
            'gateway.traces is "otlp", and the exporter is not installed: install '
            'opentelemetry-exporter-otlp-proto-http, or set it to "console" or "none"'
        ) from error
    exporter: SpanExporter = module.OTLPSpanExporter()
    return exporter
