"""Workers share the weights of OpenVINO's files; each has its own of what is made of them."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graphs import write_openvino
from newshelf.errors import WeightsError
from newshelf.serving.runtimes.base import Device, Graph, open_runtime

TABLE = Graph("table", ("rows",), ("vectors",))
ROWS, WIDTH = 4096, 256


@pytest.fixture
def values():
    return np.random.default_rng(0).random((ROWS, WIDTH), dtype=np.float32)


@pytest.fixture
def folder(tmp_path, values):
    """``vectors = values[rows]``: 4 MB of weights, of the kind that no kernel lays out anew."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["values", "rows"], ["vectors"])],
        "table",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(values, "values")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "table.onnx")
    write_openvino(tmp_path / "table.onnx", tmp_path / "table.xml")
    return tmp_path


def mapped_kilobytes(path: Path) -> dict[str, int]:
    """What of ``path`` this process has in memory, by the kernel's names."""
    found: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.endswith(" kB"):
            name, value = line.removesuffix(" kB").split(":")
            found[name] = found.get(name, 0) + int(value)
    return found


def test_weights_are_mapped_and_not_copied(folder, values):
    runtime = open_runtime("openvino", folder, TABLE, Device(), 1)
    rows = np.random.default_rng(1).permutation(ROWS)
    np.testing.assert_array_equal(runtime.run({"rows": rows})["vectors"], values[rows])
    mapped = mapped_kilobytes(folder / "table.bin")
    assert mapped["Rss"] >= values.nbytes / 1024
    assert mapped["Anonymous"] == 0


def test_a_graph_without_its_weights_is_refused(folder):
    (folder / "table.bin").unlink()
    with pytest.raises(WeightsError, match=r"table\.bin is missing"):
        open_runtime("openvino", folder, TABLE, Device(), 1)


def test_weights_that_end_too_soon_are_refused(folder):
    with (folder / "table.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        open_runtime("openvino", folder, TABLE, Device(), 1)
