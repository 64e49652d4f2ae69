"""A process that used OpenVINO can still be interrupted."""

import subprocess
import sys

OPEN_TWO_CLOSE_BOTH = """
import gc, signal, sys
from pathlib import Path
from newshelf.serving.runtimes.base import Device
from newshelf.serving.runtimes.base import Graph
from newshelf.serving.runtimes.base import open_runtime
import faulthandler
# Python gives the main thread a signal stack, as pytest and many programs do.
faulthandler.enable()
graph = Graph("tiny", ("left", "right", "mask", "index", "unused"), ("sum", "count"))
first, second = (open_runtime("openvino", Path(sys.argv[1]), graph, Device(), 1) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_models_that_were_dropped_leave_signals_deliverable(folder):
    # In a process of its own: a signal that cannot be delivered kills without a word.
    done = subprocess.run(
        [sys.executable, "-c", OPEN_TWO_CLOSE_BOTH, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
