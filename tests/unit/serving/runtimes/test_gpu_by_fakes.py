"""The way through a GPU's session, on a machine that has none: session and stream are fakes."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from newshelf.errors import SetupError
from newshelf.serving.runtimes import bound
from newshelf.serving.runtimes import onnx as module
from newshelf.serving.runtimes.base import Device, Graph
from newshelf.serving.runtimes.bound import BoundSession
from newshelf.serving.runtimes.onnx import OnnxRuntime

GRAPH = Graph("tiny", ("image", "row", "unused"), ("embedding",))
TOTAL = 16_000
# Tensors with a shape and a device, and without memory.
META = torch.device("meta")


class FakeStream:
    cuda_stream = 4321

    def __init__(self, calls, name="own"):
        self.calls, self.name = calls, name

    def wait_stream(self, other):
        self.calls.append(("wait", self.name, other.name))


class FakeBinding:
    def __init__(self, calls):
        self.calls = calls

    def bind_input(self, name, device, index, kind, shape, _address):
        self.calls.append(("input", name, device, index, kind, shape))

    def bind_output(self, name, device, index, kind, shape, _address):
        self.calls.append(("output", name, device, index, kind, shape))


class FakeSession:
    def __init__(self, path=None, options=None, providers=(), disabled_optimizers=()):
        self.providers = providers
        self.calls = []

    def get_inputs(self):
        return [
            SimpleNamespace(name="image", shape=["pictures", 3]),
            SimpleNamespace(name="row", shape=["pictures"]),
        ]

    def get_outputs(self):
        return [SimpleNamespace(name="embedding", shape=["pictures", 512])]

    def get_providers(self):
        return [name for name, _ in self.providers]

    def io_binding(self):
        return FakeBinding(self.calls)

    def run_with_iobinding(self, binding, options):
        entry = options.get_run_config_entry("disable_synchronize_execution_providers")
        self.calls.append(("run", entry))


@pytest.fixture
def limits(monkeypatch):
    """A GPU of ``TOTAL`` bytes; the shares of it that torch was limited to."""
    shares: list[tuple[float, int]] = []
    properties = SimpleNamespace(total_memory=TOTAL)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _index: FakeStream([]))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: properties)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *told: shares.append(told)
    )
    monkeypatch.setattr(module.onnxruntime, "InferenceSession", FakeSession)
    return shares


def options_of(tmp_path, device=None, **options):
    """The provider's options of a session on a GPU."""
    runtime = OnnxRuntime(tmp_path / "tiny.onnx", GRAPH, device or Device("cuda", 2), 1, **options)
    [(name, told)] = runtime._bound._session.providers
    assert name == "CUDAExecutionProvider"
    return told


def test_the_host_waits_once_and_for_the_outputs(monkeypatch):
    session = FakeSession()
    calls = session.calls

    @contextmanager
    def entered(stream):
        calls.append(("enter", stream.name))
        yield

    def to_host(tensors, device):
        calls.append(("host", [tuple(tensor.shape) for tensor in tensors], device))
        return [np.zeros(tensor.shape) for tensor in tensors]

    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: FakeStream(calls, "caller's"))
    monkeypatch.setattr(bound, "to_host", to_host)
    on_gpu = BoundSession(session, META, FakeStream(calls))
    given = {"image": torch.empty(4, 3, device=META), "row": np.arange(8)[::2], "unused": 0}
    [embedding] = on_gpu.run(given, ["embedding"])
    assert embedding.shape == (4, 512)
    assert calls == [
        ("enter", "own"),
        # The GPU waits for the pictures, which were made on another stream.
        ("wait", "own", "caller's"),
        ("input", "image", "meta", 0, np.float32, (4, 3)),
        ("input", "row", "meta", 0, np.int64, (4,)),
        ("output", "embedding", "meta", 0, np.float32, (4, 512)),
        ("run", "1"),
        ("host", [(4, 512)], META),
    ]


def test_the_session_computes_on_the_stream_that_is_waited_for(limits, tmp_path):
    told = options_of(tmp_path)
    assert told["device_id"] == 2
    assert told["user_compute_stream"] == str(FakeStream.cuda_stream)


def test_session_and_decoder_share_the_workers_memory(limits, tmp_path):
    told = options_of(tmp_path, Device("cuda", 1, memory=0.25))
    assert told["gpu_mem_limit"] == TOTAL // 8
    assert told["arena_extend_strategy"] == "kSameAsRequested"
    assert limits == [(0.125, 1)]


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", 0), ("fp16", 1)])
def test_float32_is_not_computed_in_ten_bits(limits, tmp_path, precision, tf32):
    assert options_of(tmp_path, precision=precision)["use_tf32"] == tf32


def test_another_provider_than_the_one_asked_for_is_refused(limits, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(SetupError, match="CPUExecutionProvider instead of CUDA"):
        options_of(tmp_path)


def test_torch_and_its_libraries_are_there_before_the_session(limits, tmp_path, monkeypatch):
    order: list[str] = []

    class Session(FakeSession):
        def __init__(self, *given, **named):
            order.append("session")
            super().__init__(*given, **named)

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: order.append("torch") or FakeStream([]))
    monkeypatch.setattr(module.onnxruntime, "InferenceSession", Session)
    options_of(tmp_path)
    assert order == ["torch", "session"]
