"""A worker on the CPU does without torch."""

import subprocess
import sys

_CODE = """
import sys
import newshelf.nn.inputs, newshelf.nn.spec
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision")))
"""


def test_inputs_are_made_without_torch():
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
