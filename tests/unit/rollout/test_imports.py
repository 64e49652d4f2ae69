"""A controller starts on each serving machine: it imports neither models nor whole libraries of
statistics, of which it needs single functions.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "scipy.stats")


def test_the_controller_imports_nothing_heavy() -> None:
    code = (
        "import sys, newshelf.rollout.__main__;"
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
