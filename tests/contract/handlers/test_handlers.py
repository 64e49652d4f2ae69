"""The handlers under TorchServe's own loader, context, metrics and wire format."""

import importlib
import json
import logging
import os
import struct
import time
from pathlib import Path

import pytest
import yaml
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.metrics.metric_type_enum import MetricTypes
from ts.service import Service
from ts.utils.util import list_classes_from_module

from newshelf.serving.trace import (
    BATCH_SIZE,
    CACHE_HITS,
    METRICS,
    SPANS_HEADER,
    TRACE_HEADER,
    TraceSpan,
    WorkerMetric,
    read_trace,
)
from tests.fake_predictors import FakeEncoderPredictor, FakeRecommenderPredictor

ROOT = Path(__file__).parents[3]
MODELS = ["encoder", "recommender"]


class Measured:
    """A fake that also tells the observer something, and breaks on ``boom``."""

    def __init__(self, inner, observer) -> None:
        self.inner = inner
        self.observer = observer

    def predict(self, rows):
        if any(b"boom" in bytes(part) for row in rows for part in row.parts.values()):
            raise RuntimeError("CUDA error")
        self.observer.observe(BATCH_SIZE, len(rows))
        self.observer.observe(CACHE_HITS, 3)
        now = time.perf_counter_ns()
        self.observer.trace([TraceSpan("inference", now, now + 5000)])
        return self.inner.predict(rows)


@pytest.fixture(params=MODELS)
def model(request):
    return request.param


@pytest.fixture
def handler(model, monkeypatch):
    """The handler's class, its loader replaced by a fake predictor."""
    module = importlib.import_module(f"handlers.{model}_handler")
    fake = {"encoder": FakeEncoderPredictor, "recommender": FakeRecommenderPredictor}[model]
    seen = {}

    def load(directory, *, device, settings, observer):
        seen.update(directory=directory, device=str(device), settings=settings)
        return Measured(fake(), observer)

    monkeypatch.setattr(module, f"load_{model}_predictor", load)
    [only_class] = list_classes_from_module(module)
    made = only_class()
    made.seen = seen
    return made


def unit_of(metric: WorkerMetric) -> str:
    return "s" if metric.name.endswith("_seconds") else "count"


@pytest.fixture
def service(handler, model, tmp_path):
    """TorchServe's worker side around the handler, without its socket."""
    (tmp_path / "model-config.yaml").write_text(
        yaml.safe_dump({"minWorkers": 1, "serving": {"threads": 2}, "limits": {"max_k": 5}})
    )
    declared = {
        kind: [
            {"name": item.name, "unit": unit_of(item), "dimensions": ["ModelName", "Level"]}
            for item in METRICS
            if item.kind == kind
        ]
        for kind in ("histogram", "counter")
    }
    metrics_file = tmp_path / "metrics.yaml"
    metrics_file.write_text(yaml.safe_dump({"dimensions": [], "model_metrics": declared}))
    metrics = MetricsCacheYamlImpl(str(metrics_file))
    metrics.initialize_cache()
    metrics.model_name = model
    manifest = {"model": {"configFile": "model-config.yaml"}}
    made = Service(model, str(tmp_path), manifest, handler.handle, None, 8, metrics_cache=metrics)
    made.set_cl_socket(None)
    handler.initialize(made.context)
    return made


def request(at: int, body: bytes, content_type: str = "application/json") -> dict:
    """One request as TorchServe's protocol decodes it."""
    return {
        "requestId": f"id-{at}".encode(),
        "headers": [{"name": b"Content-Type", "value": content_type.encode()}],
        "parameters": [{"name": "body", "contentType": content_type, "value": bytearray(body)}],
    }


def answers(message: bytes) -> list[tuple[int, str, dict]]:
    """Status, content type and body of each row."""
    return [(status, kind, body) for status, kind, body, _ in with_headers(message)]


def with_headers(message: bytes) -> list[tuple[int, str, dict, dict[str, str]]]:
    """The same and the headers, from the worker's wire format."""
    position = 0

    def number() -> int:
        nonlocal position
        position += 4
        return struct.unpack_from("!i", message, position - 4)[0]

    def text() -> bytes:
        nonlocal position
        length = number()
        position += length
        return bytes(message[position - length : position])

    assert number() == 200, text()
    text()
    rows = []
    while (length := number()) != -1:
        position += length  # the request's id
        content_type = text().decode()
        status = number()
        text()
        headers = {text().decode(): text().decode() for _ in range(number())}
        rows.append((status, content_type, json.loads(text()), headers))
    return rows


GOOD = {"encoder": {"title": "ring"}, "recommender": {"history": ["item-001"]}}


def test_each_row_has_its_own_status_and_json(service, model):
    good = json.dumps(GOOD[model]).encode()
    bodies = [good, b"not json", good, b'{"nonsense": 1}', b'{"title": "boom"}', good]
    rows = answers(service.predict([request(at, body) for at, body in enumerate(bodies)]))
    assert [status for status, _, _ in rows] == [200, 400, 200, 422, 500, 200]
    assert {content_type for _, content_type, _ in rows} == {"application/json"}
    assert "id-4" in rows[4][2]["message"]
    assert all("CUDA" not in json.dumps(body) for _, _, body in rows)


def test_the_next_batch_starts_afresh(service, model):
    good = json.dumps(GOOD[model]).encode()
    service.predict([request(0, b"not json"), request(1, b"not json")])
    rows = answers(service.predict([request(0, good)]))
    assert [status for status, _, _ in rows] == [200]


def test_a_form_reaches_the_predictor(service, model):
    form = {
        "requestId": b"id-0",
        "headers": [{"name": b"content-type", "value": b"multipart/form-data; boundary=x"}],
        "parameters": [
            {"name": "title", "contentType": "", "value": bytearray(b"ring")},
            {"name": "image", "contentType": "image/png", "value": bytearray(b"\x89PNG")},
        ],
    }
    [(status, _, body)] = answers(service.predict([form]))
    assert status == {"encoder": 200, "recommender": 415}[model], body


def test_a_deadline_is_read_from_the_headers(service, model):
    late = request(0, json.dumps(GOOD[model]).encode())
    late["headers"].append({"name": b"X-Newshelf-Timeout-Ms", "value": b"0"})
    [(status, _, body)] = answers(service.predict([late]))
    assert (status, body["code"]) == (504, "deadline_exceeded")


def test_the_archives_settings_reach_the_predictor(service, handler, tmp_path):
    assert handler.seen["directory"] == tmp_path
    assert handler.seen["device"] == "cpu"
    assert handler.seen["settings"].threads == 2
    assert handler.seen["settings"].limits.max_k == 5


def printed(caplog) -> list[list[str]]:
    """What the worker writes: the lines of each write."""
    return [record.getMessage().splitlines() for record in caplog.records if record.name == "root"]


def test_measurements_become_histograms(service, model, caplog):
    caplog.set_level("INFO")
    good = json.dumps(GOOD[model]).encode()
    service.predict([request(0, good), request(1, good)])
    [lines] = printed(caplog)
    [line] = [line for line in lines if BATCH_SIZE.name in line]
    assert line.startswith("[METRICS]newshelf_batch_size.Count:2|")
    assert f"|#ModelName:{model},Level:Model|#type:HISTOGRAM|" in line


def test_counts_become_counters(service, model, caplog):
    caplog.set_level("INFO")
    service.predict([request(0, json.dumps(GOOD[model]).encode())])
    [lines] = printed(caplog)
    [line] = [line for line in lines if CACHE_HITS.name in line]
    assert line.startswith(f"[METRICS]{CACHE_HITS.name}.Count:3|")
    assert "|#type:COUNTER|" in line


def test_a_batchs_metrics_are_one_write(service, model, caplog):
    caplog.set_level("INFO")
    good = json.dumps(GOOD[model]).encode()
    for _ in range(3):
        logging.info("Backend received inference at: %d", 1)
        service.predict([request(0, good)])
    logging.info("something else")
    *batches, other = printed(caplog)
    assert other == ["something else"]
    assert [len(lines) for lines in batches] == [3, 3, 3]
    assert all(line.startswith("[METRICS]") for lines in batches for line in lines)


def test_a_metric_that_cannot_be_told_is_said_at_once(service, caplog):
    caplog.set_level("INFO")
    service.context.metrics.get_metric(BATCH_SIZE.name, MetricTypes.HISTOGRAM).add_or_update(1, [])
    [[line]] = printed(caplog)
    assert "Failed to update metric" in line


def test_spans_go_to_those_who_asked_and_to_no_one_else(service, model):
    good = json.dumps(GOOD[model]).encode()
    asking = request(1, good)
    asking["headers"].append({"name": TRACE_HEADER.title().encode(), "value": b"1"})
    before = time.time_ns()
    quiet, told = with_headers(service.predict([request(0, good), asking]))
    assert SPANS_HEADER not in quiet[3]
    trace = read_trace(told[3][SPANS_HEADER])
    assert (trace.worker, trace.size) == (os.getpid(), 2)
    assert [span.stage for span in trace.spans] == ["inference"]
    assert before - 1_000_000 <= trace.start_ns <= trace.spans[0].start_ns <= trace.end_ns
    # Neither the warm-up's spans nor another batch's.
    [(*_, headers)] = with_headers(service.predict([asking]))
    assert len(read_trace(headers[SPANS_HEADER]).spans) == 1


def test_a_handler_is_one_class_of_a_unique_module_name(model):
    source = (ROOT / "handlers" / f"{model}_handler.py").read_text()
    assert len(source.splitlines()) < 60
    module = importlib.import_module(f"handlers.{model}_handler")
    assert len(list_classes_from_module(module)) == 1
