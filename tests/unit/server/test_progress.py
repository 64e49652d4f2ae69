"""A start fails after a time without progress, not after a fixed time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from newshelf.server import process as progress_module
from newshelf.server.process import (
    ProcessRef,
    StartupProgress,
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


def test_a_busy_start_may_take_longer_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_LEAST_S", 0.01)
    monkeypatch.setattr(progress_module, "_REPORT_EVERY_S", 0.0)
    reported: list[str] = []
    with running(BUSY, tmp_path) as ref:
        progress = StartupProgress(ref, "the encoder", 4.0, reported.append)
        end_s = time.monotonic() + 6
        while time.monotonic() < end_s:
            assert not progress.failed()
            time.sleep(0.2)
    assert reported[-1].startswith("waiting for the encoder: ")


def test_an_idle_start_fails(tmp_path: Path) -> None:
    with running(IDLE, tmp_path) as ref:
        progress = StartupProgress(ref, "the encoder", 3.0, lambda _text: None)
        while not progress.failed():
            time.sleep(0.1)
