import json

import onnx
import pytest
import torch

from export import run as export_run
from export.run import export_model
from newshelf.errors import ParityError, SetupError, WeightsError
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.serving.bundle import read_spec, read_version
from newshelf.serving.runtime import encoder_graph, open_runtime
from tests.unit.export.tiny_checkpoint import tiny_spec, write_tiny_checkpoint

CPU = torch.device("cpu")
GRAPHS = ("encoder", "projector", "scorer")
KINDS = ("torchscript", "onnxruntime")


def test_everything_that_serving_reads_is_written(exported, checkpoint_dir):
    out, result = exported
    graphs = {f"{graph}{suffix}" for graph in GRAPHS for suffix in (".pt", ".onnx")}
    others = {"model.json", "tokenizer.json", "version.json", "parity.json"}
    assert {path.name for path in out.iterdir()} == graphs | others
    checkpoint = load_checkpoint(checkpoint_dir)
    assert read_version(out) == result.version == checkpoint.version
    assert read_spec(out) == checkpoint.spec


def test_report_covers_each_graph_runtime_batch_size_and_missing_modality(exported):
    out, result = exported
    report = json.loads((out / "parity.json").read_text())
    assert report["passed"]
    assert report["model_version"] == result.version
    assert set(report["versions"]) == {"torch", "onnx", "onnxruntime"}
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
    out, _ = exported
    cases = json.loads((out / "parity.json").read_text())["cases"]
    encoder = [case for case in cases if case["graph"] == "encoder"]
    outputs = {"embedding", "target_type_logits", "color_logits"}
    names = {case["case"] for case in encoder}
    seen = {(case["case"], case["runtime"], case["output"]) for case in encoder}
    assert seen == {(name, kind, out) for name in names for kind in KINDS for out in outputs}
    assert len(seen) == len(encoder)


def test_onnx_files_hold_their_weights_and_name_their_dynamic_dimensions(exported):
    out, _ = exported
    model = onnx.load(out / "encoder.onnx", load_external_data=False)
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


def test_onnx_files_say_nothing_of_the_machine_that_made_them(exported):
    out, _ = exported
    assert b"site-packages" not in (out / "encoder.onnx").read_bytes()


@pytest.mark.parametrize("present", ["image", "text"])
def test_absent_tower_leaves_its_inputs_unread(tmp_path, present):
    spec = tiny_spec(image=present == "image", text=present == "text", scorer=False)
    out = tmp_path / "export"
    export_model(write_tiny_checkpoint(tmp_path / "checkpoint", spec), out)
    assert not (out / "projector.onnx").exists()
    assert not (out / "scorer.pt").exists()
    assert (out / "tokenizer.json").exists() == (present == "text")
    model = onnx.load(out / "encoder.onnx")
    inputs = {value.name for value in model.graph.input}
    towers = {
        "image": {"image", "image_row"},
        "text": {"input_ids", "attention_mask", "text_row"},
    }
    assert inputs == towers[present] | {"attributes"}


def test_both_runtimes_take_the_placeholders_of_absent_towers(tmp_path):
    spec = tiny_spec(image=False, scorer=False)
    out = tmp_path / "export"
    export_model(write_tiny_checkpoint(tmp_path / "checkpoint", spec), out)
    inputs = {
        "image": torch.zeros(1, 3, 1, 1),
        "image_row": torch.tensor([2]),
        "input_ids": torch.tensor([[2, 5, 3]]),
        "attention_mask": torch.ones(1, 3, dtype=torch.int64),
        "text_row": torch.tensor([1]),
        "attributes": torch.zeros(2, 9, dtype=torch.int64),
    }
    graph = encoder_graph(spec.encoder)
    answers = [open_runtime(kind, out, graph, CPU, 1).run(inputs)["embedding"] for kind in KINDS]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)
    assert answers[0].shape == (2, 512)


@pytest.mark.parametrize("writer", ["write_torchscript", "write_onnx"])
def test_graph_with_other_weights_is_not_exported(tmp_path, monkeypatch, checkpoint_dir, writer):
    write = getattr(export_run, writer)

    def write_perturbed(module, *rest):
        weight = next(p for name, p in module.named_parameters() if "fusion.output" in name)
        kept = weight.clone()
        weight += 0.01 * torch.randn_like(weight)
        write(module, *rest)
        weight.copy_(kept)

    monkeypatch.setattr(export_run, writer, write_perturbed)
    kind = "torchscript" if writer == "write_torchscript" else "onnxruntime"
    with pytest.raises(ParityError, match=rf"encoder \({kind}\), batch 1, .*embedding is off by"):
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
    monkeypatch.setattr("export.onnx_graph._LARGEST_BYTES", 1000)
    with pytest.raises(SetupError, match="one ONNX file holds at most 2 GB"):
        export_model(checkpoint_dir, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="train first"):
        export_model(tmp_path / "none", tmp_path / "export")


def test_threads_are_as_before(exported):
    # The gate computes on one thread; the session's own number must have come back.
    before = torch.get_num_threads()
    with export_run._one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
