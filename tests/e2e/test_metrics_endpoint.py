"""What Prometheus sees on the metrics port."""

import time

import httpx

from newshelf.catalog.catalog import Catalog
from newshelf.pipeline.serve import Served
from newshelf.server.client import Client
from newshelf.server.process import members
from newshelf.serving.trace import BATCH_SIZE, METRICS
from tests.e2e.metrics_page import HISTOGRAMS, settled, told
from tests.e2e.products import ENCODER, RECOMMENDER, base64_of, picture_of

STAGES = [metric.name for metric in METRICS if metric.name.endswith("_seconds")]
SENT = {"encoder": 3, "recommender": 2}


def test_every_batch_is_measured_in_seconds_stage_by_stage(
    http: httpx.Client, client: Client, catalog: Catalog
) -> None:
    product = {"title": "ring", "image": base64_of(picture_of(catalog, 0))}
    before = settled(client)
    started = time.perf_counter()
    for _ in range(SENT["encoder"]):
        assert http.post(ENCODER, json=product).status_code == 200
    # A refused request was work too.
    statuses = [http.post(RECOMMENDER, json=body).status_code for body in ({"k": 1}, {"k": 0})]
    assert statuses == [200, 422]
    wall_s = time.perf_counter() - started

    after = settled(client, batched=told(before) + sum(SENT.values()))
    spent_s = 0.0
    for (model, name), now in after.items():
        was = before[model, name]
        # One after the other, so each was a batch of its own.
        assert now.count - was.count == SENT[model], (model, name)
        assert now.buckets[float("inf")] == now.count
        filled = [now.buckets[bound] for bound in sorted(now.buckets)]
        assert filled == sorted(filled)
        if name == BATCH_SIZE.name:
            assert now.sum - was.sum == SENT[model]
        else:
            assert now.sum >= was.sum
            spent_s += now.sum - was.sum
    for name in STAGES:
        assert after["encoder", name].sum > before["encoder", name].sum
    assert 0.001 < spent_s < wall_s


def test_all_metrics_are_there_and_no_others_of_ours(client: Client) -> None:
    page = client.metrics()
    declared = [
        line.split()[2:] for line in page.splitlines() if line.startswith("# TYPE newshelf_")
    ]
    assert sorted(declared) == sorted([metric.name, metric.kind] for metric in METRICS)
    for metric in HISTOGRAMS:
        for model in ("encoder", "recommender"):
            assert f'{metric.name}_count{{ModelName="{model}",Level="Model",' in page


def test_torchserve_measures_no_system_and_starts_no_process_for_it(
    client: Client, server: Served
) -> None:
    page = client.metrics()
    assert "ts_inference_requests_total" in page
    assert not [name for name in ("CPUUtilization", "MemoryUsed", "DiskUsage") if name in page]
    commands = [" ".join(process.cmdline()) for process in members(server.state.current().process)]
    assert sum("model_service_worker.py" in command for command in commands) == 2
    # Java, and a worker for each model.
    assert len(commands) == 3, commands


def test_metrics_are_on_no_other_port(http: httpx.Client) -> None:
    assert http.get("/metrics").status_code == 404
