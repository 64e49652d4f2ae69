"""Spans, where they are asked for."""

import io
import json
import sys
from types import ModuleType
from typing import Any

import pytest

from newshelf.errors import SettingsError
from newshelf.gateway.observability import NO_SPANS, make_spans


def test_none_makes_none() -> None:
    assert make_spans("none") is NO_SPANS
    with NO_SPANS.request("/v1/recommend", None), NO_SPANS.span("model"):
        NO_SPANS.note(status=200)


def test_a_request_and_its_parts_are_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    spans = make_spans("console")
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with spans.request("/v1/recommend", parent):
        with spans.span("model"):
            pass
        with spans.span("record"):
            pass
        spans.note(request_id="r1", status=200)
    spans.close()
    told: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [span["name"] for span in told] == ["model", "record", "/v1/recommend"]
    trace = "0x0af7651916cd43dd8448eb211c80319c"
    assert {span["context"]["trace_id"] for span in told} == {trace}
    request = told[-1]
    assert request["parent_id"] == "0xb7ad6b7169203331"
    assert {span["parent_id"] for span in told[:2]} == {request["context"]["span_id"]}
    assert request["attributes"] == {"request_id": "r1", "status": 200}


def test_an_exporter_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match="opentelemetry-exporter-otlp-proto-http"):
        make_spans("otlp")


def test_an_exporter_that_is_installed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    class Exporter:
        def export(self, spans: Any) -> None:
            sent.extend(span.name for span in spans)

        def shutdown(self) -> None: ...

    module = ModuleType("trace_exporter")
    module.OTLPSpanExporter = Exporter  # type: ignore[attr-defined]
    monkeypatch.setitem(
        sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", module
    )
    spans = make_spans("otlp")
    with spans.request("/v1/encode", None):
        pass
    spans.close()
    assert sent == ["/v1/encode"]
