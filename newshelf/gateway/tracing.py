"""OpenTelemetry traces, where the settings ask for them.

One span for each request, with those of the model and of the record inside; a
``traceparent`` of the caller is gone on with. Spans hold no unit and no product.
"""

import importlib
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from newshelf.errors import SettingsError

__all__ = ["NO_SPANS", "Spans", "make_spans"]

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
