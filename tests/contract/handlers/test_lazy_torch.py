"""What a worker's Python runs first: torch is there, and costs nothing until it is used."""

import os
import subprocess
import sys
from pathlib import Path

import handlers

START_UP = Path(handlers.__file__).with_name("sitecustomize.py")


def run(tmp_path: Path, code: str) -> str:
    (tmp_path / START_UP.name).write_bytes(START_UP.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


LIBRARIES = "print(any('libtorch' in line for line in open('/proc/self/maps')))"


def test_torchserves_worker_starts_without_loading_torch(tmp_path):
    assert run(tmp_path, f"import ts.model_service_worker\n{LIBRARIES}") == "False"


def test_without_the_file_it_would(tmp_path):
    code = f"import sys; sys.meta_path.pop(0)\nimport ts.model_service_worker\n{LIBRARIES}"
    assert run(tmp_path, code) == "True"


def test_torch_loads_when_it_is_used(tmp_path):
    code = f"import torch\n{LIBRARIES}\nprint(torch.ones(2).sum().item())\n{LIBRARIES}"
    assert run(tmp_path, code).split() == ["False", "2.0", "True"]


def test_torch_loads_for_what_is_inside_it(tmp_path):
    code = "from torch.nn import functional as F\nimport torch\nprint(F.relu(torch.ones(1)).item())"
    assert run(tmp_path, code) == "1.0"


def test_only_torch_itself_is_put_off(tmp_path):
    code = "import sys, torchgen\nprint(type(sys.modules['torchgen']).__name__)"
    assert run(tmp_path, code) == "module"


def test_without_torch_its_use_says_so(tmp_path):
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        "import torch, inspect\n"
        # Looks at every module.
        "inspect.getmodule(inspect)\n"
        "for _ in range(2):\n"
        "    try:\n        torch.Tensor\n"
        "    except ModuleNotFoundError as error:\n        print(error)\n"
        "try:\n    import torch.nn\n"
        "except ModuleNotFoundError as error:\n    print(error.name)"
    )
    missing = "No module named 'torch'"
    assert run(tmp_path, code).splitlines() == [missing, missing, "torch.nn"]
