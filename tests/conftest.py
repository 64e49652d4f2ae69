"""What every test process starts from."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit
# that, down to the servers that the tests end with Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of a closed terminal, which nohup has ignored.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A busy machine breaks every limit of time, and the code is none the worse for it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

pytest_plugins = ["tests.fixtures"]

_RUN = "NEWSHELF_TEST_RUN"
_END_CHILDREN = f"""
import sys
sys.stdin.read()
import psutil
for process in psutil.process_iter():
    try:
        if process.environ().get("{_RUN}") == sys.argv[1]:
            process.kill()
    except psutil.Error:
        pass
"""


@pytest.fixture(scope="session", autouse=True)
def children_end_with_the_run() -> Iterator[None]:
    """Kill what the tests have started and not ended, also if this process is killed.

    Servers start in sessions of their own. Another process waits for the end of this one, which
    closes the pipe between them.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, "-c", _END_CHILDREN, mark]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        os.environ[_RUN] = mark
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Undo what a test has set torch's threads to, which are the whole process's: with two,
    trainings take many times as long where other processes want the cores.
    """
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


E2E = Path(__file__).parent / "e2e"
LIVE = ("torchserve", "readme", "rollouts", "towers")
"""Groups of e2e tests, in order; those without one are in the first, and most share a server."""


# Before pytest-xdist looks at the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a server or a module's fixture in one process; start with the
    longest groups.
    """
    for item in items:
        if E2E in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            own = LIVE[0]
        elif shares_a_fixture(item):
            own = item.path.stem
        else:
            continue
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(own))
    items.sort(key=rank)


def shares_a_fixture(item: pytest.Item) -> bool:
    made: dict[str, tuple[pytest.FixtureDef[object], ...]] = item._fixtureinfo.name2fixturedefs
    return any(one.scope == "module" for defined in made.values() for one in defined)


def rank(item: pytest.Item) -> int:
    """Live servers come before everything else; single tests, which fill the last gaps, at last."""
    group = item.get_closest_marker("xdist_group")
    if group is None:
        return len(LIVE) + 1
    return LIVE.index(group.args[0]) if group.args[0] in LIVE else len(LIVE)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: a compressed file's hold the time, and pytest-xdist's
    processes must collect the same tests.
    """
    return argname if isinstance(val, bytes) else None
