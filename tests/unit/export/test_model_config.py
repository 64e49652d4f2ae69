import os

import pytest
import yaml

from export.mar import model_config
from newshelf.config import ArchiveSettings, ModelServingSettings, RetrievalSettings, load_settings
from newshelf.errors import SetupError
from newshelf.serving.model_config import preloads
from newshelf.serving.settings import ServingSettings


@pytest.fixture
def settings():
    return ArchiveSettings(
        runtime="torchscript",
        precision="fp32",
        encoder=ModelServingSettings(
            batch_size=16, max_batch_delay_ms=4, workers=3, threads=2, decode_threads=5
        ),
    )


def test_server_gets_its_keys_in_its_spelling(settings):
    table = yaml.safe_load(model_config(settings, settings.encoder))
    del table["serving"], table["limits"]
    assert table == {
        "minWorkers": 3,
        "maxWorkers": 3,
        "batchSize": 16,
        "maxBatchDelay": 4,
        "responseTimeout": 30,
        "jobQueueSize": 64,
    }


def test_serving_reads_back_what_was_written(settings):
    table = yaml.safe_load(model_config(settings, settings.encoder))
    read = ServingSettings.from_model_config(table)
    assert read == ServingSettings(
        runtime="torchscript",
        threads=2,
        decode_threads=5,
        batch_size=16,
        gpu_memory=round(0.9 / 2 / 4, 3),
    )
    # Every key is written out: another version of the code may have other defaults.
    assert set(table["limits"]) == set(type(read.limits).model_fields)
    retrieval = set(RetrievalSettings.model_fields)
    assert set(table["serving"]) == set(ServingSettings.model_fields) - {"limits"} - retrieval


def test_all_workers_of_two_versions_have_room_on_one_gpu(settings):
    def share(**changes):
        encoder = settings.encoder.model_copy(update=changes)
        table = yaml.safe_load(model_config(settings, encoder))
        return table["serving"]["gpu_memory"]

    workers = settings.encoder.workers + settings.recommender.workers
    assert 0.8 < 2 * workers * share() < 1
    assert share(gpu_memory=0.3) == 0.3


def test_every_setting_reaches_the_workers(tmp_path):
    path = tmp_path / "newshelf.toml"
    path.write_text(
        """\
[archive]
runtime = "onnxruntime"
precision = "fp32"
[archive.recommender]
retrieve = 77
min_confidence = 0.9
max_forward_batch = 5
max_forward_pictures = 3
cache_bytes = 0
preload = false
[archive.limits]
max_k = 9
"""
    )
    settings = load_settings(path).archive
    table = yaml.safe_load(model_config(settings, settings.recommender))
    read = ServingSettings.from_model_config(table)
    assert read.limits.max_k == 9
    assert (
        read.model_dump(exclude_unset=True).items()
        >= {
            "retrieve": 77,
            "min_confidence": 0.9,
            "max_forward_batch": 5,
            "max_forward_pictures": 3,
            "cache_bytes": 0,
            "preload": False,
        }.items()
    )


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_cores_are_divided_among_workers(monkeypatch, cores, workers, threads):
    model = ModelServingSettings(workers=workers)
    table = yaml.safe_load(
        model_config(ArchiveSettings(runtime="onnxruntime", precision="fp32"), model)
    )
    # The exporting machine has other cores than the one that serves.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    read = ServingSettings.from_model_config(table)
    assert (read.threads, read.decode_threads) == (threads, threads)


@pytest.mark.parametrize(
    ("threads", "wanted", "forked"),
    [(1, True, True), (0, True, True), (2, True, False), (1, False, False)],
)
def test_workers_of_one_thread_are_forked_unless_preload_is_off(
    monkeypatch, threads, wanted, forked
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    model = ModelServingSettings(workers=2, threads=threads, preload=wanted)
    settings = ArchiveSettings(runtime="openvino", precision="fp32")
    assert preloads(yaml.safe_load(model_config(settings, model))) is forked


@pytest.mark.parametrize(
    ("runtime", "precision", "device"),
    [
        ("onnxruntime", "fp32", None),
        ("torchscript", "fp32", None),
        ("onnxruntime", "int8", "cpu"),
        ("openvino", "bf16", "cpu"),
        ("onnxruntime", "fp16", "gpu"),
    ],
)
def test_what_computes_on_one_kind_of_device_asks_for_it(runtime, precision, device):
    settings = ArchiveSettings(runtime=runtime, precision=precision)
    table = yaml.safe_load(model_config(settings, settings.encoder))
    assert table.get("deviceType") == device
    assert table["serving"]["precision"] == precision


def test_auto_must_be_decided_before():
    with pytest.raises(SetupError, match="not decided"):
        model_config(ArchiveSettings(), ModelServingSettings())
