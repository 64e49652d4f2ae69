"""The way through a GPU's session, on a machine that has none: the session is a fake."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from newshelf.errors import SetupError
from newshelf.serving.runtimes import onnx as module
from newshelf.serving.runtimes.base import LOST_GPU, Device, Graph, end_with_lost_gpu
from newshelf.serving.runtimes.onnx import OnnxRuntime

GRAPH = Graph("tiny", ("image", "row", "unused"), ("embedding",))


class FakeTensor:
    """As much of a tensor on a GPU as binding reads."""

    def __init__(self, index=2, dtype=torch.float32):
        self.device = torch.device("cuda", index)
        self.dtype = dtype
        self.shape = torch.Size((2, 3))

    def detach(self):
        return self

    def contiguous(self):
        return self

    def data_ptr(self):
        return 4096


class FakeBinding:
    def __init__(self, calls):
        self.calls = calls

    def bind_input(self, *told):
        self.calls.append(("bind", *told))

    def bind_cpu_input(self, name, array):
        self.calls.append(("bind host", name, array.flags["C_CONTIGUOUS"]))

    def bind_output(self, name, device):
        self.calls.append(("output", name, device))

    def synchronize_outputs(self):
        self.calls.append(("synchronize",))

    def get_outputs(self):
        return [SimpleNamespace(numpy=lambda: np.ones((2, 4), dtype=np.float32))]


class FakeSession:
    def __init__(self, path, options, providers, disabled_optimizers):
        self.providers = providers
        self.calls = []

    def get_inputs(self):
        return [SimpleNamespace(name="image"), SimpleNamespace(name="row")]

    def get_providers(self):
        return [name for name, _ in self.providers]

    def io_binding(self):
        return FakeBinding(self.calls)

    def run_with_iobinding(self, binding):
        self.calls.append(("run",))


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(module.onnxruntime, "InferenceSession", FakeSession)
    monkeypatch.setattr(module, "_wait_for", lambda tensor: None)


def open_on_gpu(tmp_path, **options) -> OnnxRuntime:
    return OnnxRuntime(tmp_path / "tiny.onnx", GRAPH, Device("cuda", 2), 1, **options)


def test_tensors_on_the_gpu_are_bound_where_they_are(session, tmp_path):
    runtime = open_on_gpu(tmp_path)
    row = np.arange(4)[::2]
    outputs = runtime.run({"image": FakeTensor(), "row": row, "unused": row})
    *calls, last = runtime._session.calls
    assert set(calls) == {
        ("bind", "image", "cuda", 2, np.dtype("float32"), (2, 3), 4096),
        ("bind host", "row", True),
        ("output", "embedding", "cpu"),
        ("run",),
    }
    # Outputs are read when they are there.
    assert last == ("synchronize",)
    assert outputs["embedding"].shape == (2, 4)


def test_a_tensor_of_another_gpu_is_refused(session, tmp_path):
    with pytest.raises(SetupError, match=r"image is on cuda:0.* cuda:2"):
        open_on_gpu(tmp_path).run({"image": FakeTensor(index=0), "row": np.arange(2)})


def test_cuda_gets_the_workers_device(session, tmp_path):
    [(name, options)] = open_on_gpu(tmp_path)._session.providers
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == 2


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", 0), ("fp16", 1)])
def test_float32_is_not_computed_in_ten_bits(session, tmp_path, precision, tf32):
    [(_, options)] = open_on_gpu(tmp_path, precision=precision)._session.providers
    assert options["use_tf32"] == tf32


def test_another_provider_than_the_one_asked_for_is_refused(session, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(SetupError, match="CPUExecutionProvider instead of CUDA"):
        open_on_gpu(tmp_path)


def test_the_gpus_libraries_are_loaded_before_the_session():
    program = """
import sys
from pathlib import Path
import onnxruntime
from newshelf.serving.runtimes.base import Device, Graph
from newshelf.serving.runtimes.onnx import OnnxRuntime

class Session:
    def __init__(self, *_, **__):
        sys.exit(int("torch" not in sys.modules))

assert "torch" not in sys.modules
onnxruntime.InferenceSession = Session
OnnxRuntime(Path("any.onnx"), Graph("any", (), ()), Device("cuda"), 1)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def lost(*_):
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def test_a_worker_whose_gpu_is_lost_ends(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    end_with_lost_gpu(Device())
    assert codes == []
    end_with_lost_gpu(Device("cuda", 1))
    assert codes == [LOST_GPU]


def test_a_worker_whose_gpu_answers_stays(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("it ended"))
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    end_with_lost_gpu(Device("cuda", 1))
    assert asked == [1]
