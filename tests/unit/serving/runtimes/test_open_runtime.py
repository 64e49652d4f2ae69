"""What was asked for is opened, or refused with what to do."""

import subprocess
import sys

import pytest
import torch

from newshelf.errors import SetupError
from newshelf.serving.runtimes.base import (
    Device,
    encoder_graph,
    graph_files,
    open_runtime,
    projector_graph,
    scorer_graph,
)
from newshelf.serving.runtimes.onnx import OnnxRuntime

GPU = Device("cuda", 1)

RUN_WITHOUT_TORCH = """
import sys
from pathlib import Path
import numpy as np
from newshelf.serving.runtimes.base import Device
from newshelf.serving.runtimes.base import Graph
from newshelf.serving.runtimes.base import open_runtime

graph = Graph("tiny", ("left", "right", "mask", "index", "unused"), ("sum", "count"))
runtime = open_runtime(sys.argv[1], Path(sys.argv[2]), graph, Device(), 1)
ones = np.ones((2, 3), dtype=np.float32)
outputs = runtime.run({"left": ones, "right": ones, "mask": ones > 0, "index": np.arange(2)})
assert outputs["sum"].tolist() == [[2.0] * 3] * 2
print("torch" in sys.modules)
"""


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_on_the_cpu_no_torch_is_imported(kind, folder):
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, kind, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_the_pool_does_not_spin_and_keeps_its_threads(folder, graph):
    runtime = OnnxRuntime(folder / "tiny.onnx", graph, Device(), 3)
    options = runtime._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("precision", "type_name"), [("fp32", "f32"), ("bf16", "bf16"), ("int8", "bf16")]
)
def test_openvino_is_told_threads_and_precision(folder, tmp_path, graph, precision, type_name):
    for suffix in ("xml", "bin"):
        (tmp_path / f"tiny.{suffix}").symlink_to(folder / f"tiny.{suffix}")
        (tmp_path / f"tiny.int8.{suffix}").symlink_to(folder / f"tiny.{suffix}")
    runtime = open_runtime("openvino", tmp_path, graph, Device(), 2, precision)
    told = {
        name: runtime._parts[0].compiled.get_property(name)
        for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "ENABLE_CPU_PINNING")
    }
    assert told == {"INFERENCE_NUM_THREADS": 2, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    computed = runtime._parts[0].compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    # A CPU without bfloat16 computes in float32, which is never worse.
    assert computed in {type_name, "f32"}


@pytest.mark.parametrize("kind", ["onnxruntime", "torchscript"])
def test_a_gpu_that_is_not_there_is_refused(opened, kind):
    """On a machine without a GPU, ONNX Runtime would silently fall back to the CPU."""
    if torch.cuda.is_available():
        assert opened(kind, device=Device("cuda"))
        return
    with pytest.raises(SetupError, match=r"no GPU.*cuda:0"):
        opened(kind, device=Device("cuda"))


@pytest.mark.parametrize(
    ("kind", "device", "options", "message"),
    [
        ("openvino", GPU, {}, r"openvino does not compute on cuda:1"),
        ("openvino", Device(), {"precision": "fp16"}, r"in fp16 on cpu, but in fp32, bf16, int8"),
        ("torchscript", Device(), {"precision": "int8"}, r"in int8 on cpu, but in fp32"),
        ("onnxruntime", Device(), {"precision": "bf16"}, r"in bf16 on cpu, but in fp32, int8"),
        ("onnxruntime", GPU, {"precision": "bf16"}, r"onnxruntime does not compute in bf16"),
        ("onnxruntime", GPU, {"precision": "int8"}, r"onnxruntime does not compute in int8"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused_by_name(opened, kind, device, options, message):
    with pytest.raises(SetupError, match=message):
        opened(kind, device=device, **options)


def test_files_are_named_by_graph_and_precision():
    assert graph_files("encoder", "torchscript") == ("encoder.pt",)
    assert graph_files("encoder", "onnxruntime") == ("encoder.onnx",)
    assert graph_files("encoder", "openvino", "bf16") == ("encoder.xml", "encoder.bin")
    assert graph_files("encoder", "openvino", "int8") == ("encoder.int8.xml", "encoder.int8.bin")
    assert graph_files("encoder", "onnxruntime", "fp16") == ("encoder.fp16.onnx",)


def test_graphs_are_named_as_the_exporter_names_them(spec):
    assert encoder_graph(spec.encoder).outputs == ("embedding", "color_logits", "material_logits")
    assert projector_graph().outputs == ("vector",)
    assert scorer_graph().outputs == ("scores", "attention")


def test_devices_are_said_as_torch_reads_them():
    assert [str(Device()), str(GPU)] == ["cpu", "cuda:1"]
