"""Neither Newshelf nor its libraries write outside its folders, or report their use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USES = {
    "ONNX Runtime": """
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [one], [out])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString())
session.run(None, {"x": np.ones(1, dtype=np.float32)})
""",
    "OpenVINO's conversion tools": """
import openvino
from openvino.tools.ovc import telemetry_utils
telemetry_utils.init_ovc_telemetry()
telemetry_utils.send_conversion_result("success")
""",
    "Matplotlib": """
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
plt.figure().savefig("plot.png")
""",
    "the command line": """
import contextlib, newshelf.cli.app
with contextlib.suppress(SystemExit):
    newshelf.cli.app.app(["--help"])
""",
}


@pytest.mark.parametrize("library", USES)
def test_nothing_is_written_into_the_home_folder(library: str, tmp_path: Path) -> None:
    home, work, temporary = (tmp_path / name for name in ("home", "work", "tmp"))
    for folder in (home, work, temporary):
        folder.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if "TELEMETRY" not in name and not name.startswith(("XDG_", "MPL", "CI"))
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import newshelf\n{USES[library]}"],
        cwd=work,
        env=inherited | places,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.relative_to(home) for path in home.rglob("*")] == []
    assert [path.name for path in temporary.iterdir() if path.name.startswith(".ses")] == []
