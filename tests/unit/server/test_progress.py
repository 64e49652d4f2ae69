"""A start is given up when nothing moves, not when a fixed time is over."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from newshelf.config import LogSettings
from newshelf.server import process as progress_module
from newshelf.server.process import (
    LOG,
    ProcessRef,
    StartupProgress,
    keep_earlier,
    start_session,
    stop_session,
)

BUSY = "while True: pass"
IDLE = "import time; time.sleep(600)"


@contextmanager
def running(code: str, folder: Path) -> Iterator[ProcessRef]:
    ref = start_session(
        [sys.executable, "-c", code], cwd=folder, env=dict(os.environ), log=folder / "log"
    )
    try:
        yield ref
    finally:
        stop_session(ref)


def test_what_works_may_take_longer_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_LEAST_S", 0.01)
    monkeypatch.setattr(progress_module, "_TELL_S", 0.0)
    told: list[str] = []
    with running(BUSY, tmp_path) as ref:
        progress = StartupProgress(ref, "the encoder", 20.0, told.append)
        end_s = time.monotonic() + 25
        while time.monotonic() < end_s:
            assert not progress.failed()
            time.sleep(0.5)
    assert told[-1].startswith("waiting for the encoder: ")


def test_what_stands_still_is_given_up(tmp_path: Path) -> None:
    with running(IDLE, tmp_path) as ref:
        progress = StartupProgress(ref, "the encoder", 3.0, lambda _text: None)
        while not progress.failed():
            time.sleep(0.1)


def test_earlier_logs_are_numbered_from_the_newest(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    keep_earlier(log, 3)
    for number in range(5):
        log.write_text(f"{number}")
        keep_earlier(log, 3)
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
