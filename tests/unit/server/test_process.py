import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from newshelf.server.process import (
    ProcessRef,
    exit_reason,
    is_running,
    members,
    start_session,
    stop_session,
)

TREE = """
import os, signal, subprocess, sys, time
def deaf(): signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=deaf)
print(child.pid, flush=True)
if "deaf" in sys.argv: deaf()
if "die" in sys.argv: sys.exit(0)
time.sleep(600)
"""


def wait_for(condition: "object", what: str) -> None:
    for _ in range(400):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.025)
    raise AssertionError(f"waited in vain for {what}")


class Tree:
    """A process and its child, which does not hear SIGTERM."""

    def __init__(self, folder: Path, *words: str) -> None:
        log = folder / "tree.log"
        self.ref = start_session(
            [sys.executable, "-c", TREE, *words], cwd=folder, env=os.environ, log=log
        )
        wait_for(lambda: log.read_text().endswith("\n"), "the child's id")
        self.child = psutil.Process(int(log.read_text()))


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[list[Tree]]:
    made: list[Tree] = []
    yield made
    for tree in made:
        stop_session(tree.ref, grace_s=0, orphans_s=0)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_started_process_leads_a_new_session(tmp_path: Path, trees: list[Tree]) -> None:
    trees.append(tree := Tree(tmp_path))
    assert is_running(tree.ref)
    assert os.getsid(tree.ref.pid) == tree.ref.pid != os.getsid(0)
    assert {process.pid for process in members(tree.ref)} == {tree.ref.pid, tree.child.pid}


def test_files_of_a_started_process_are_private_at_once(tmp_path: Path) -> None:
    code = "open('key_file.json', 'w').write('{}')"
    ref = start_session(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ, log=tmp_path / "log"
    )
    wait_for(lambda: not is_running(ref), "the end")
    assert (tmp_path / "key_file.json").stat().st_mode & 0o777 == 0o600


def test_stopping_ends_the_process_and_a_child_that_ignores_the_request(
    tmp_path: Path, trees: list[Tree]
) -> None:
    trees.append(tree := Tree(tmp_path))
    stop_session(tree.ref, orphans_s=0.1)
    assert not is_running(tree.ref)
    assert gone(tree.child)
    assert members(tree.ref) == []


def test_a_process_that_ignores_the_request_is_killed_after_the_grace(
    tmp_path: Path, trees: list[Tree]
) -> None:
    trees.append(tree := Tree(tmp_path, "deaf"))
    stop_session(tree.ref, grace_s=0.2, orphans_s=0.1)
    assert not is_running(tree.ref)
    assert gone(tree.child)


def test_orphans_of_a_dead_process_are_found_and_ended(tmp_path: Path, trees: list[Tree]) -> None:
    trees.append(tree := Tree(tmp_path, "die"))
    wait_for(lambda: not is_running(tree.ref), "the leader's end")
    assert [process.pid for process in members(tree.ref)] == [tree.child.pid]
    stop_session(tree.ref, orphans_s=0.1)
    assert gone(tree.child)


def test_a_step_of_the_systems_clock_changes_nothing(
    tmp_path: Path, trees: list[Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both times are computed from the clock, and jump with it, such as when a machine resumes."""
    trees.append(tree := Tree(tmp_path))
    started, booted = psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: started(process) + 60)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 60)
    assert is_running(tree.ref)
    assert tree.ref.pid in [process.pid for process in members(tree.ref)]


def test_a_later_process_with_the_same_id_is_left_alone(tmp_path: Path, trees: list[Tree]) -> None:
    trees.append(tree := Tree(tmp_path))
    recycled = replace(tree.ref, create_time=tree.ref.create_time - 60, mark="another start's")
    assert not is_running(recycled)
    stop_session(recycled)
    assert is_running(tree.ref)
    assert not gone(tree.child)


def test_someone_elses_process_in_no_session_of_ours_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        stop_session(ProcessRef(stranger.pid, 1.0, "mark"))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_ended_and_was_not_reaped_does_not_run(
    tmp_path: Path, trees: list[Tree]
) -> None:
    trees.append(tree := Tree(tmp_path, "die"))
    wait_for(lambda: not is_running(tree.ref), "the leader's end")
    assert psutil.Process(tree.ref.pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended with SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", f"ended with signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_the_reason_names_exit_code_or_signal(tmp_path: Path, code: str, reason: str) -> None:
    command = [sys.executable, "-c", f"import os, signal, sys; {code}"]
    ref = start_session(command, cwd=tmp_path, env={**os.environ}, log=tmp_path / "log")
    while is_running(ref):
        time.sleep(0.01)
    assert exit_reason(ref) == reason


GIVES_WAY = """
import os
from pathlib import Path
from newshelf.server.process import give_way
give_way(7)
group = Path("/proc/self/autogroup")
print(os.nice(0), group.read_text().split()[-1] if group.exists() else 7)
"""


def test_a_process_gives_way_to_those_of_other_sessions() -> None:
    command = [sys.executable, "-c", GIVES_WAY]
    printed = subprocess.check_output(command, start_new_session=True, text=True)
    assert printed.split() == ["7", "7"]
