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
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from newshelf.errors import NewshelfError, SettingsError
from newshelf.gateway.context import RequestContext
from newshelf.rollout.plan import OVER
from newshelf.server.program import MULTIPROCESS_FOLDER
from newshelf.server.state import read_state
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore

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
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
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


@dataclass(frozen=True)
class InstallationMetrics(Collector):
    """Metrics of what other processes leave in files and rows; none of what cannot be read."""

    drift: Path | None = None
    """Last report of ``./run drift``."""
    keys: Path | None = None
    """TorchServe's key file, next to the server's state."""
    spool: Spool | None = None
    store: EventStore | None = None

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        sources: tuple[tuple[Callable[[Any], Iterator[Metric]], Any], ...] = (
            (_drift, self.drift),
            (_restarts, self.keys),
            (_spool, self.spool),
            (_shelf, self.store),
            (_rollouts, self.store),
        )
        for read, source in sources:
            with suppress(OSError, ValueError, KeyError, TypeError, NewshelfError):
                yield from [] if source is None else list(read(source))


def _gauge(name: str, about: str, values: Mapping[Any, float | None], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"newshelf_{name}", about, labels=labels)
    for key, value in values.items():
        of_labels = [key] if isinstance(key, str) else key
        family.add_metric(of_labels, math.nan if value is None else value)
    return family


def _drift(path: Path) -> Iterator[Metric]:
    report = orjson.loads(path.read_bytes())
    age_s = time.time() - datetime.fromisoformat(report["until"]).timestamp()
    sizes = {one["name"]: one["size"] for one in report["measures"]}
    triggered = dict.fromkeys(sizes, 0.0) | dict.fromkeys(report["triggers"], 1.0)
    yield _gauge("drift", "Sizes of drift; NaN if unknown.", sizes, "measure")
    yield _gauge("drift_triggered", "1 if a measure has drifted.", triggered, "measure")
    yield _gauge("drift_age_seconds", "Age of the report.", {(): age_s})


def _restarts(keys: Path) -> Iterator[Metric]:
    about = "Restarts by the supervisor."
    family = CounterMetricFamily("newshelf_process_restarts", about, labels=["process"])
    # A supervisor of the gateway alone keeps its state where the metrics are.
    for folder in {keys.parent, Path(os.environ.get(MULTIPROCESS_FOLDER, keys.parent))}:
        if state := read_state(folder):
            for name in state.services:
                family.add_metric([name], state.counts.get(name, 0))
    yield family


def _spool(spool: Spool) -> Iterator[Metric]:
    rows, used, oldest_s = spool.usage()
    yield _gauge("spool_rows", "Rows that wait in the spool.", {(): rows})
    yield _gauge("spool_bytes", "Size of the spool.", {(): used})
    yield _gauge("spool_max_bytes", "Size at which it is full.", {(): spool.max_bytes})
    yield _gauge("spool_oldest_seconds", "Age of the oldest waiting row.", {(): oldest_s})


def _shelf(store: EventStore) -> Iterator[Metric]:
    lags = store.items.lags(socket.gethostname())
    about = "Age of the oldest change that this host has not published; 0 without any."
    yield _gauge("shelf_lag_seconds", about, lags, "version")


def _rollouts(store: EventStore) -> Iterator[Metric]:
    phases, ages = {}, {}
    for row in store.rollouts.all():
        # One of an earlier version, which would be refused now, must not hide the others.
        phase = orjson.loads(row.state)["phase"]
        if phase not in OVER:
            last = store.rollouts.last_snapshot(row.name)
            seen = max(row.updated_at, last.at) if last else row.updated_at
            phases[row.name, phase] = 1.0
            ages[row.name] = (datetime.now(UTC) - seen).total_seconds()
    yield _gauge(
        "rollout_phase", "1 for the phase of a rollout in progress.", phases, "rollout", "phase"
    )
    yield _gauge("rollout_look_age_seconds", "Time since it was last decided on.", ages, "rollout")


class GatewayMetrics:
    """Metrics of one process."""

    def __init__(self) -> None:
        # Not the default registry, so that tests can run several gateways in one process.
        registry = self._registry = CollectorRegistry()
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
        """Return the metrics of all processes behind this port."""
        page = self._registry
        if MULTIPROCESS_FOLDER in os.environ:
            page = CollectorRegistry()
            multiprocess.MultiProcessCollector(page)  # type: ignore[no-untyped-call]
        return generate_latest(page)


_OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_NOTHING: AbstractContextManager[None] = nullcontext()


class Spans:
    """Makes and exports spans; none without an exporter."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._provider: TracerProvider | None = None
        if exporter is not None:
            service = Resource.create({"service.name": "newshelf-gateway"})
            self._provider = TracerProvider(resource=service)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("newshelf.gateway")
            self._propagator = TraceContextTextMapPropagator()

    def request(self, route: str, parent: bytes | None) -> AbstractContextManager[Any]:
        """Return a span of a whole request; ``parent`` is its header ``traceparent``."""
        if self._provider is None:
            return _NOTHING
        carrier = {} if parent is None else {"traceparent": parent.decode("latin-1")}
        return self._tracer.start_as_current_span(
            route, context=self._propagator.extract(carrier), kind=SpanKind.SERVER
        )

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Return a span of a part of the request."""
        return self._tracer.start_as_current_span(name) if self._provider else _NOTHING

    def note(self, **attributes: str | int) -> None:
        """Add attributes to the request's span."""
        if self._provider:
            get_current_span().set_attributes(attributes)

    def close(self) -> None:
        """Send the remaining spans."""
        if self._provider:
            self._provider.shutdown()


NO_SPANS = Spans()


def make_spans(kind: Literal["none", "console", "otlp"]) -> Spans:
    """Return the spans that the setting ``gateway.traces`` names."""
    if kind == "none":
        return NO_SPANS
    if kind == "console":
        # One span per line, next to the log's lines.
        return Spans(
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
    return Spans(module.OTLPSpanExporter())
