"""Log files of processes: earlier ones are kept, and none grows without end."""

import subprocess
import sys
from pathlib import Path

import pytest

from newshelf.config import LogSettings
from newshelf.server.process import LOG, rotate_log


def test_earlier_logs_are_numbered_from_the_newest(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    rotate_log(log, 3)
    for number in range(5):
        log.write_text(f"{number}")
        rotate_log(log, 3)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"x.log.1": "4", "x.log.2": "3", "x.log.3": "2"}


ROTATE = """
import os, subprocess, sys
from newshelf.config import LogSettings
from newshelf.server.process import rotate_own
child = "import sys\\nfor n in range({lines}): sys.stderr.write(f'child {{n:06}}\\\\n'.format(n=n))"
for round in range(3):
    subprocess.run([sys.executable, "-c", child.format(lines=10_000)], check=True)
    rotate_own(LogSettings(max_bytes=100_000, kept=2))
"""


@pytest.mark.parametrize("named", [True, False])
def test_a_rotated_log_is_that_of_the_children_too(tmp_path: Path, named: bool) -> None:
    log = tmp_path / "x.log"
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    environment |= {LOG: str(log if named else tmp_path / "another.log")}
    with log.open("ab") as output:
        subprocess.run(
            [sys.executable, "-P", "-c", ROTATE], stderr=output, env=environment, check=True
        )
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    each = 10_000 * len("child 000000\n")
    # A file that is not known to be the log is never emptied.
    assert sizes == (
        {"x.log": 0, "x.log.1": each, "x.log.2": each} if named else {"x.log": 3 * each}
    )
    assert LogSettings().kept == 5
