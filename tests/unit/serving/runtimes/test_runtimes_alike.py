"""Every runtime answers alike: by name, on the host, and from any thread."""

import threading

import numpy as np
import pytest
import torch

from newshelf.errors import WeightsError
from newshelf.serving.runtimes.base import Device, Graph, open_runtime, projector_graph
from newshelf.serving.runtimes.bound import BoundSession
from newshelf.serving.runtimes.onnx import OnnxRuntime

KINDS = ("torchscript", "onnxruntime", "openvino")


@pytest.fixture(params=[*KINDS, "onnxruntime with IO binding"])
def runtime(request, folder, graph):
    if "binding" in request.param:
        return _bound(OnnxRuntime(folder / "tiny.onnx", graph, Device(), 1))
    return open_runtime(request.param, folder, graph, Device(), 1)


def _bound(runtime: OnnxRuntime) -> OnnxRuntime:
    """The way through a GPU's session, on the CPU."""
    runtime._bound = BoundSession(runtime._session, torch.device("cpu"), None)
    return runtime


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_outputs_come_by_name_as_arrays(runtime, inputs, expected_sum, batch):
    given = inputs(batch)
    outputs = runtime.run(given)
    assert list(outputs) == ["sum", "count"]
    assert {type(array) for array in outputs.values()} == {np.ndarray}
    assert {array.dtype for array in outputs.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(outputs["sum"], expected_sum(given), rtol=1e-6)
    np.testing.assert_allclose(
        outputs["count"], given["right"].sum(axis=1) + given["index"], rtol=1e-6
    )


def test_outputs_outlive_the_next_run(runtime, inputs):
    first = runtime.run(inputs(4, 1))["sum"]
    kept = first.copy()
    for seed in range(5):
        runtime.run(inputs(4, 2 + seed))
    np.testing.assert_array_equal(first, kept)


def test_inputs_need_not_be_contiguous(runtime, inputs, expected_sum):
    given = inputs(3)
    given["left"] = given["left"].T
    np.testing.assert_allclose(runtime.run(given)["sum"], expected_sum(given), rtol=1e-6)


def test_tensors_of_the_host_are_read_too(runtime, inputs, expected_sum):
    given = inputs(3)
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    np.testing.assert_allclose(runtime.run(tensors)["sum"], expected_sum(given), rtol=1e-6)


def test_inputs_stay_as_they_are(runtime, inputs):
    given = inputs(3)
    kept = {name: array.copy() for name, array in given.items()}
    runtime.run(given)
    for name, array in given.items():
        np.testing.assert_array_equal(array, kept[name])


def test_threads_may_run_at_the_same_time(runtime, inputs, expected_sum):
    wrong = []

    def work(seed: int) -> None:
        for turn in range(30):
            given = inputs(1 + (seed + turn) % 5, seed)
            if not np.array_equal(runtime.run(given)["sum"], expected_sum(given)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_damaged_files_are_told(kind, tmp_path):
    graph = Graph("none", ("a",), ("b",))
    with pytest.raises(WeightsError, match="is missing"):
        open_runtime(kind, tmp_path, graph, Device(), 1)
    for suffix in ("pt", "onnx", "xml", "bin"):
        (tmp_path / f"none.{suffix}").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        open_runtime(kind, tmp_path, graph, Device(), 1)


def test_a_projector_gives_one_named_output(bundle):
    runtime = open_runtime("torchscript", bundle, projector_graph(), Device(), 1)
    rows = np.random.default_rng(0).random((3, 512), dtype=np.float32)
    vector = runtime.run({"embedding": rows})["vector"]
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), 1, atol=1e-5)
