"""Log, Prometheus metrics and OpenTelemetry traces of the gateway.

The log is one JSON object per line on standard error. Log lines and spans contain no unit, product,
body or key; a request is identified by its id.

Several processes share one page of metrics: each writes into files of one folder, which
prometheus-client adds up (its multiprocess mode).

Traces have one span per request, with those of the model and of the record inside, and continue a
caller's ``traceparent``.
"""

import asyncio
import importlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from newshelf.errors import SettingsError
from newshelf.gateway.context import RequestContext
from newshelf.server.program import MULTIPROCESS_FOLDER

_SERVER_ERROR = 500
_TOGETHER_S = 0.05
"""Lines of this time are written together, since a write costs more than a line."""


class JsonLines(logging.Formatter):
    """Formats records as JSON: ``at``, ``level``, ``event``, ``logger``, ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
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
    """Send this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # It logs each check of an unchanged schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)


class RequestLog:
    """Logs one line per request: all, or only those with a server error."""

    def __init__(self, out: TextIO, *, everything: bool) -> None:
        self._out = out
        self._everything = everything
        self._lines: list[bytes] = []

    def request(self, context: RequestContext, method: str, route: str) -> None:
        """Log one request; requires a running event loop."""
        failed = context.status >= _SERVER_ERROR
        if not (failed or self._everything):
            return
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "error" if failed else "info",
            "event": "request",
            "request_id": context.request_id,
            "method": method,
            "route": route,
            "status": context.status,
            "duration_ms": round(context.spent_ms, 3),
            "key": context.key and context.key.name,
            "source": context.source,
            "version": context.version,
            "reason": context.reason,
        }
        self._lines.append(orjson.dumps(line))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Write the pending lines."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._out.write(b"\n".join([*lines, b""]).decode())
            self._out.flush()


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class DriftMetrics(Collector):
    """Metrics of the last report of ``./run drift``, read from its file; none without one."""

    path: Path

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        try:
            report = orjson.loads(self.path.read_bytes())
            age_s = time.time() - datetime.fromisoformat(report["until"]).timestamp()
            sizes = {one["name"]: one["size"] for one in report["measures"]}
            triggered = dict.fromkeys(sizes, 0.0) | dict.fromkeys(report["triggers"], 1.0)
        except (OSError, ValueError, KeyError, TypeError):
            return
        for name, about, values in (
            ("newshelf_drift", "Sizes of drift; NaN if unknown.", sizes),
            ("newshelf_drift_triggered", "1 if a measure has drifted.", triggered),
        ):
            family = GaugeMetricFamily(name, about, labels=["measure"])
            for measure, value in values.items():
                family.add_metric([measure], math.nan if value is None else value)
            yield family
        yield GaugeMetricFamily("newshelf_drift_age_seconds", "Age of the report.", value=age_s)


class GatewayMetrics:
    """Metrics of one process, and of the last report on drift."""

    def __init__(self, drift: Path | None = None) -> None:
        # Not the default registry, so that tests can run several gateways in one process.
        registry = self._registry = CollectorRegistry()
        self._drift = DriftMetrics(drift) if drift else None
        common: Any = {"namespace": "newshelf", "subsystem": "gateway", "registry": registry}
        counter: Callable[..., Counter] = partial(Counter, **common)
        seconds: Callable[..., Histogram] = partial(Histogram, buckets=_SECONDS, **common)
        gauge: Callable[..., Gauge] = partial(Gauge, multiprocess_mode="livemax", **common)
        self._requests = counter("requests", "Answered requests.", ["route", "status"])
        self._seconds = seconds(
            "request_seconds", "Time from a request's headers to the end of its answer.", ["route"]
        )
        self.model_seconds = seconds("model_seconds", "Time of the recommender's answer.")
        self.record_seconds = seconds("record_seconds", "Time to record an answer.")
        self.fallbacks = counter("fallbacks", "Answers without a model, by error code.", ["reason"])
        self.unrecorded = counter("unrecorded", "Answers that could not be recorded.")
        self.feedback = counter("feedback", "Feedback events, as answered.", ["outcome"])
        self.histories = counter(
            "histories",
            "Histories of units: of the cache, the store, or unavailable.",
            ["source"],
        )
        self.shadow = counter(
            "shadow", "Shadow requests: answered, failed or dropped.", ["outcome"]
        )
        self.breaker = gauge(
            "breaker",
            "State of the circuit breaker: 0 closed, 1 half-open, 2 open.",
            ["model", "version"],
        )
        self.model_up = gauge(
            "model_up", "1: it answers.", ["model"], multiprocess_mode="mostrecent"
        )
        self.record = gauge(
            "record", "Where answers are recorded: 0 event store, 1 spool, 2 nowhere."
        )
        self.rollouts_age = gauge(
            "rollouts_age_seconds", "Time since the rollouts were read from the store."
        )
        # Finding a metric by its labels costs more than counting.
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

    def page(self) -> bytes:
        """Return the page of ``GET /metrics``."""
        page = self._registry
        if MULTIPROCESS_FOLDER in os.environ:
            page = CollectorRegistry()
            multiprocess.MultiProcessCollector(page)  # type: ignore[no-untyped-call]
        return generate_latest(page) + (generate_latest(self._drift) if self._drift else b"")


_OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_NOTHING: AbstractContextManager[None] = nullcontext()


class Spans:
    """Makes no spans."""

    def request(self, route: str, parent: bytes | None) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Return a span of a whole request; ``parent`` is its header ``traceparent``."""
        return _NOTHING

    def span(self, name: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Return a span of a part of the request."""
        return _NOTHING

    def note(self, **attributes: str | int) -> None:
        """Add attributes to the request's span."""

    def close(self) -> None:
        """Send the remaining spans."""


NO_SPANS = Spans()


def make_spans(kind: Literal["none", "console", "otlp"]) -> Spans:
    """Return the spans that the setting ``gateway.traces`` names."""
    if kind == "none":
        return NO_SPANS
    if kind == "console":
        # One span per line, next to the log's lines.
        return _OpenTelemetry(
            ConsoleSpanExporter(
                out=sys.stderr, formatter=lambda span: (span.to_json(indent=None) or "") + "\n"
            )
        )
    try:
        module = importlib.import_module(_OTLP)
    except ImportError as error:
        raise SettingsError(
            'gateway.traces is "otlp", and the exporter is not installed: install '
            'opentelemetry-exporter-otlp-proto-http, or set it to "console" or "none"'
        ) from error
    return _OpenTelemetry(module.OTLPSpanExporter())


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
