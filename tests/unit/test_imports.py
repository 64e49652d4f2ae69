"""Processes of each serving machine start fast and stay small: they import neither models, nor what
trains them, nor whole libraries of which they need single functions.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINS = ("torch", "pandas")
GATEWAY = (*TRAINS, "pyarrow", "transformers", "onnxruntime", "newshelf.nn.encoder")
CONTROLLER = (*TRAINS, "matplotlib", "sklearn", "scipy.stats")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        pytest.param("newshelf.gateway.app, newshelf.gateway.main", GATEWAY, id="gateway"),
        pytest.param("newshelf.rollout.__main__", CONTROLLER, id="controller"),
    ],
)
def test_a_process_imports_nothing_heavy(modules: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
