import json

import numpy as np
import onnx
import pytest
import torch

from export import run as export_run
from export.run import export_model, subjects
from newshelf.errors import ParityError, SetupError, WeightsError
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.nn.spec import read_spec
from newshelf.serving.runtimes.base import Device, encoder_graph, open_runtime
from newshelf.serving.settings import read_version
from tests.unit.export.tiny_checkpoint import shared_export

CPU = Device()
GRAPHS = ("encoder", "projector", "scorer")
SUFFIXES = (".pt", ".onnx", ".xml", ".bin")
KINDS = ("torchscript", "onnxruntime", "openvino")


def test_everything_that_serving_reads_is_written(exported, checkpoint_dir):
    graphs = {f"{graph}{suffix}" for graph in GRAPHS for suffix in SUFFIXES}
    others = {"model.json", "tokenizer.json", "version.json", "parity.json"}
    assert {path.name for path in exported.iterdir()} == graphs | others
    checkpoint = load_checkpoint(checkpoint_dir)
    assert read_version(exported) == checkpoint.version
    assert read_spec(exported) == checkpoint.spec


def test_report_covers_each_graph_runtime_batch_size_and_missing_modality(exported):
    report = json.loads((exported / "parity.json").read_text())
    assert report["passed"]
    assert report["model_version"] == read_version(exported)
    assert set(report["versions"]) == {"torch", "onnx", "onnxruntime", "openvino"}
    assert set(report["worst"]) == {f"{graph} {kind}" for graph in GRAPHS for kind in KINDS}
    assert all(value <= report["tolerance"] for value in report["worst"].values())
    names = {case["case"] for case in report["cases"] if case["graph"] == "encoder"}
    for size in (1, 2, 32):
        for what in ("complete", "no picture", "no text", "no attributes", "nothing", "mixed"):
            assert any(name.startswith(f"batch {size}, {what}") for name in names)
    for tokens in (3, 7, 33, 36):
        assert f"batch 2, each text length, {tokens} tokens" in names
    scorer = {case["case"] for case in report["cases"] if case["graph"] == "scorer"}
    assert "batch 1, history 5, 200 candidates, all masked" in scorer


def test_report_has_every_output_of_every_case_in_both_runtimes(exported):
    cases = json.loads((exported / "parity.json").read_text())["cases"]
    encoder = [case for case in cases if case["graph"] == "encoder"]
    outputs = {"embedding", "target_type_logits", "color_logits"}
    names = {case["case"] for case in encoder}
    seen = {(case["case"], case["runtime"], case["output"]) for case in encoder}
    assert seen == {(name, kind, out) for name in names for kind in KINDS for out in outputs}
    assert len(seen) == len(encoder)


def test_onnx_files_hold_their_weights_and_name_their_dynamic_dimensions(exported):
    model = onnx.load(exported / "encoder.onnx", load_external_data=False)
    onnx.checker.check_model(model)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "image": ["pictures", 3, 32, 32],
        "image_row": ["pictures"],
        "input_ids": ["texts", "tokens"],
        "attention_mask": ["texts", "tokens"],
        "text_row": ["texts"],
        "attributes": ["batch", 9],
        "embedding": ["batch", 512],
        "target_type_logits": ["batch", 3],
        "color_logits": ["batch", 2],
    }
    assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_graphs_say_nothing_of_the_machine_that_made_them(exported, suffix):
    text = (exported / f"encoder.{suffix}").read_bytes()
    assert b"site-packages" not in text
    assert str(exported.parent).encode() not in text


@pytest.mark.parametrize("present", ["image", "text"])
def test_absent_tower_is_neither_read_nor_in_the_way(tmp_path_factory, worker_id, present):
    _, out = shared_export(tmp_path_factory, worker_id, towers=present)
    spec = read_spec(out)
    expected = {f"encoder{suffix}" for suffix in SUFFIXES}
    expected |= {"model.json", "version.json", "parity.json"}
    expected |= {"tokenizer.json"} if present == "text" else set()
    assert {path.name for path in out.iterdir()} == expected
    towers = {
        "image": {"image", "image_row"},
        "text": {"input_ids", "attention_mask", "text_row"},
    }
    inputs = {value.name for value in onnx.load(out / "encoder.onnx").graph.input}
    assert inputs == towers[present] | {"attributes"}
    # Serving stands in for an absent tower with tensors of one pixel and one token.
    size = 32 if present == "image" else 1
    given = {
        "image": torch.zeros(1, 3, size, size),
        "image_row": torch.tensor([2]),
        "input_ids": torch.ones(1, 1, dtype=torch.int64),
        "attention_mask": torch.ones(1, 1, dtype=torch.int64),
        "text_row": torch.tensor([1]),
        "attributes": torch.zeros(2, 9, dtype=torch.int64),
    }
    graph = encoder_graph(spec.encoder)
    answers = [open_runtime(kind, out, graph, CPU, 1).run(given)["embedding"] for kind in KINDS]
    assert answers[0].shape == (2, 512)
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("writer", ["write_torchscript", "write_onnx"])
def test_graph_with_other_weights_is_not_exported(tmp_path, monkeypatch, checkpoint_dir, writer):
    write = getattr(export_run, writer)

    def write_perturbed(module, *rest):
        kept = module.skip.weight.clone()
        module.skip.weight += 0.001 * torch.randn_like(kept)
        write(module, *rest)
        module.skip.weight.copy_(kept)

    def only_the_projector(checkpoint):
        return [subject for subject in subjects(checkpoint) if subject.graph.name == "projector"]

    monkeypatch.setattr(export_run, writer, write_perturbed)
    monkeypatch.setattr(export_run, "subjects", only_the_projector)
    kind = "torchscript" if writer == "write_torchscript" else "onnxruntime"
    message = rf"projector \({kind}\), 1 embeddings: vector is off by 0\.\d+, and 0\.0001"
    with pytest.raises(ParityError, match=message):
        export_model(checkpoint_dir, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_failed_export_leaves_the_one_before(tmp_path, monkeypatch, checkpoint_dir):
    out = tmp_path / "export"
    out.mkdir()
    (out / "kept").touch()
    monkeypatch.setattr(export_run, "report", lambda *_: (_ for _ in ()).throw(OSError("full")))
    monkeypatch.setattr(export_run, "subjects", lambda _: [])
    with pytest.raises(OSError, match="full"):
        export_model(checkpoint_dir, out)
    assert [path.name for path in out.iterdir()] == ["kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_weights_above_two_gigabytes_are_refused_at_once(tmp_path, monkeypatch, checkpoint_dir):
    monkeypatch.setattr("export.graphs._LARGEST_BYTES", 1000)
    with pytest.raises(SetupError, match="2 GB"):
        export_model(checkpoint_dir, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="train first"):
        export_model(tmp_path / "none", tmp_path / "export")


def test_threads_are_as_before():
    # The gate computes on one thread; the session's own number must have come back.
    before = torch.get_num_threads()
    with export_run._one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
