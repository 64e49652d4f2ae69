"""A server's state knows the controller of rollouts, so that whoever ends the one ends both."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from newshelf.server.process import is_running, start_session
from newshelf.server.state import ServerState, read_state

Start = Callable[..., ServerState]


def test_the_controller_is_written_down_and_ended_with_the_server(
    start_fake: Start, tmp_path: Path
) -> None:
    process = start_session(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        cwd=tmp_path,
        env=os.environ,
        log=tmp_path / "controller.log",
    )
    state = replace(start_fake(), controller=process)
    state.save()
    assert read_state(state.directory) == state
    state.end()
    assert not is_running(process)
    assert not is_running(state.process)
    assert read_state(state.directory) is None
