"""CPU time of a process that computes for a while, and of its child."""

import os
import signal
import sys
import time

import pytest

from benchmarks.serve.cpu import Spent, _of_others, mark_own_processes
from newshelf.server.process import start_session, stop_session

SECONDS = 0.3
BURN = f"""
import subprocess, sys, time
if sys.argv[1:] == []:
    subprocess.Popen([sys.executable, __file__, "child"])
while time.process_time() < {SECONDS}:
    pass
time.sleep(600)
"""


@pytest.fixture
def server(tmp_path):
    script, log = tmp_path / "burn.py", tmp_path / "log"
    script.write_text(BURN)
    process = start_session([sys.executable, script], cwd=tmp_path, env=dict(os.environ), log=log)
    yield process
    stop_session(process, grace_s=0)


def test_all_processes_count_from_the_moment_of_watching(server):
    watching = Spent(server, {})
    # Less than they compute: the system counts whole ticks.
    least_us = 1.8 * SECONDS * 1e6
    while sum(watching.per_request_us(1).values()) < least_us:
        time.sleep(0.05)
    later = Spent.watch(server)
    whole_us = sum(watching.per_request_us(1).values())
    assert sum(watching.per_request_us(10).values()) >= least_us / 10
    assert sum(later.per_request_us(1).values()) <= whole_us - least_us + 0.2 * SECONDS * 1e6
    assert len(watching.per_request_us(1)) == 1  # one program: Python


DETACHED = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open("detached", "w").write(str(os.getpid()))
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
time.sleep(600)
"""


def test_a_servers_process_that_left_its_session_counts_as_the_servers(tmp_path, monkeypatch):
    """As those of BentoML and LitServe do."""
    monkeypatch.setenv("NEWSHELF_BENCHMARK_RUN", "")
    mark_own_processes()
    script, pid_file = tmp_path / "server.py", tmp_path / "detached"
    script.write_text(DETACHED)
    server = start_session(
        [sys.executable, script], cwd=tmp_path, env=dict(os.environ), log=tmp_path / "log"
    )
    try:
        watching = Spent(server, {})
        while sum(watching.per_request_us(1).values()) < 0.25e6:
            time.sleep(0.05)
        detached = int(pid_file.read_text())
        assert os.getsid(detached) != server.pid
        assert detached not in {pid for _, pid, _ in _of_others()}
    finally:
        stop_session(server, grace_s=0)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
