"""A process of the gateway is small: it imports neither models nor what trains them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "pandas", "pyarrow", "transformers", "onnxruntime", "newshelf.nn.encoder")


def test_the_gateway_imports_no_model() -> None:
    code = (
        "import sys, newshelf.gateway.app, newshelf.gateway.main;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
