import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from newshelf.server.process import interruptible, uninterrupted

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import time
from newshelf.server.process import interruptible, uninterrupted
try:
    with interruptible():
        print("ready", flush=True)
        time.sleep(600)
finally:
    with uninterrupted():
        print("cleaning up", flush=True)
        input()
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_unwinds_the_program_and_further_ones_do_not_stop_that(
    number: signal.Signals,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning up\n"
    for again in (number, signal.SIGINT, signal.SIGTERM):
        process.send_signal(again)
    assert process.communicate("\n")[0] == "cleaned up\n"


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_ignoring_signals_restores_their_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    with uninterrupted(), uninterrupted():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: uninterrupted().__enter__()).result() is None


def test_an_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
