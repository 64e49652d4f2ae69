"""``./run test`` and ``./run check``, by ``tests/__main__.py``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests import __main__ as command_line


@pytest.mark.parametrize("verb", ["test", "check"])
def test_each_verbs_help_has_an_example(verb: str) -> None:
    result = CliRunner().invoke(
        command_line.app, [verb, "--help"], prog_name="./run", env={"COLUMNS": "200"}
    )
    assert f"Usage: ./run {verb}" in result.output
    assert f"Example: ./run {verb}" in " ".join(result.output.split())


GROUPED = """
import os
import pathlib
import pytest

HERE = pathlib.Path(__file__).parent

@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("number", range(8))
def test_one_of_a_group(number):
    (HERE / os.environ["PYTEST_XDIST_WORKER"]).touch()
"""


def test_a_quick_run_keeps_tests_that_share_a_server_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise each process would train a model and start a server of its own.
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    live = tmp_path / "tests" / "e2e" / "test_live.py"
    live.parent.mkdir(parents=True)
    live.write_text("def test_a_server(): raise AssertionError")
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    assert command_line.run_tests(["-q", "-p", "no:cacheprovider"], quick=True) == 0
    workers = {path.name for path in tmp_path.glob("gw*")}
    assert len(workers) == 1


DYING = """
import os
import pytest

@pytest.mark.parametrize("number", range(12))
def test_one_kills_its_process(number):
    if number == 1:
        os.kill(os.getpid(), 9)
"""


def test_a_process_that_dies_ends_the_run_and_its_test_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_dying.py").write_text(DYING)
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    assert command_line.run_tests(["-q", "-p", "no:cacheprovider"]) != 0
    assert "test_one_kills_its_process[1]" in capfd.readouterr().out


def test_the_exit_code_is_pytests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []

    def call(command: list[str], **_options: object) -> int:
        commands.append(tuple(command))
        return 3

    monkeypatch.setattr(subprocess, "call", call)
    assert command_line.run_tests(["tests/unit"]) == 3
    assert commands[0][:3] == (sys.executable, "-m", "pytest")
    assert commands[0][-1] == "tests/unit"
