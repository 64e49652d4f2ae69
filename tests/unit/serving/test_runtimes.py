"""Both runtimes run the same small graph; no exporter is involved."""

import threading

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from newshelf.errors import SetupError, WeightsError
from newshelf.nn.inputs import Tokenizer
from newshelf.serving.runtime import (
    Graph,
    OnnxRuntime,
    TorchScriptRuntime,
    encoder_graph,
    open_runtime,
    projector_graph,
    scorer_graph,
)

CPU = torch.device("cpu")
GRAPH = Graph("tiny", ("left", "right", "mask", "index", "unused"), ("sum", "count"))


class Tiny(torch.nn.Module):
    def forward(self, left, right, mask, index, unused):
        return torch.where(mask, left + right, left), right.sum(dim=1) + index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``sum = left + right · mask``, ``count = Σ right + index``; ONNX lacks ``unused``."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.jit.script(Tiny()).save(str(folder / "tiny.pt"))
    nodes = [
        helper.make_node("Add", ["left", "right"], ["both"]),
        helper.make_node("Where", ["mask", "both", "left"], ["sum"]),
        helper.make_node("ReduceSum", ["right", "axes"], ["total"], keepdims=0),
        helper.make_node("Cast", ["index"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["total", "number"], ["count"]),
    ]
    value, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [
        value("index", TensorProto.INT64, ["batch"]),
        value("left", floats, ["batch", 3]),
        value("right", floats, ["batch", 3]),
        value("mask", TensorProto.BOOL, ["batch", 3]),
    ]
    outputs = [value("count", floats, ["batch"]), value("sum", floats, ["batch", 3])]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "tiny.onnx")
    return folder


@pytest.fixture(scope="module", params=["torchscript", "onnx", "onnx with IO binding"])
def runtime(request, folder):
    if request.param == "torchscript":
        return TorchScriptRuntime(folder / "tiny.pt", GRAPH, CPU)
    return OnnxRuntime(folder / "tiny.onnx", GRAPH, CPU, 1, bind="binding" in request.param)


def inputs(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.rand((batch, 3), generator=generator) for _ in range(2))
    mask = torch.rand((batch, 3), generator=generator) > 0.5
    index = torch.arange(batch)
    return {"left": left, "right": right, "mask": mask, "index": index, "unused": torch.zeros(1)}


def expected_sum(given: dict[str, torch.Tensor]) -> torch.Tensor:
    return given["left"] + given["right"] * given["mask"]


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_outputs_come_by_name(runtime, batch):
    given = inputs(batch)
    outputs = runtime.run(given)
    assert list(outputs) == ["sum", "count"]
    torch.testing.assert_close(outputs["sum"], expected_sum(given))
    torch.testing.assert_close(outputs["count"], given["right"].sum(dim=1) + given["index"])
    assert runtime.device == outputs["sum"].device == CPU


def test_outputs_outlive_the_next_run(runtime):
    first = runtime.run(inputs(4, 1))["sum"]
    kept = first.clone()
    for seed in range(5):
        runtime.run(inputs(4, 2 + seed))
    torch.testing.assert_close(first, kept)


def test_inputs_need_not_be_contiguous(runtime):
    given = inputs(3)
    given["left"] = given["left"].T
    torch.testing.assert_close(runtime.run(given)["sum"], expected_sum(given))


def test_threads_may_run_at_the_same_time(runtime):
    wrong = []

    def work(seed: int) -> None:
        for turn in range(30):
            given = inputs(1 + (seed + turn) % 5, seed)
            if not torch.equal(runtime.run(given)["sum"], expected_sum(given)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_pool_does_not_spin_and_keeps_its_threads(folder):
    options = OnnxRuntime(folder / "tiny.onnx", GRAPH, CPU, 3)._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_provider_that_is_not_to_be_had_is_refused(folder):
    """On a machine without a GPU, ONNX Runtime would silently fall back to the CPU."""
    if torch.cuda.is_available():
        assert OnnxRuntime(folder / "tiny.onnx", GRAPH, torch.device("cuda", 0), 1)
        return
    with pytest.raises(SetupError, match="instead of CUDAExecutionProvider"):
        OnnxRuntime(folder / "tiny.onnx", GRAPH, torch.device("cuda", 0), 1)


@pytest.mark.parametrize("kind", ["onnxruntime", "torchscript"])
def test_missing_and_damaged_files_are_told(kind, tmp_path):
    graph = Graph("none", ("a",), ("b",))
    with pytest.raises(WeightsError, match="is missing"):
        open_runtime(kind, tmp_path, graph, CPU, 1)
    for suffix in ("pt", "onnx"):
        (tmp_path / f"none.{suffix}").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        open_runtime(kind, tmp_path, graph, CPU, 1)


def test_graphs_are_named_as_the_exporter_names_them(spec):
    assert encoder_graph(spec.encoder).outputs == ("embedding", "color_logits", "material_logits")
    assert projector_graph().outputs == ("vector",)
    assert scorer_graph().outputs == ("scores", "attention")


def test_a_projector_gives_one_named_output(bundle):
    runtime = open_runtime("torchscript", bundle, projector_graph(), CPU, 1)
    vector = runtime.run({"embedding": torch.rand(3, 512)})["vector"]
    np.testing.assert_allclose(vector.norm(dim=1).numpy(), 1, atol=1e-5)


def test_the_tokenizer_of_the_bundle_truncates(bundle):
    tokens, _ = Tokenizer(bundle / "tokenizer.json", 16, 0).batch(["ring " * 100])
    assert tokens.shape == (1, 16)
