"""The systemd units of deploy/: they parse, and start verbs and options that exist."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from newshelf.cli.app import app

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def check_command(words: list[str]) -> None:
    """``…/run retrain OPTIONS``, as the command line reads it."""
    start = next(at for at, word in enumerate(words) if word.endswith("run"))
    verb, *options = words[start + 1 :]
    command: Any = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known


def read_units() -> dict[str, configparser.ConfigParser]:
    read = {}
    for path in UNITS:
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(path.read_text())
        read[path.name] = parser
    return read


def test_the_service_serves_in_the_foreground_without_privileges() -> None:
    service = read_units()["newshelf.service"]["Service"]
    words = shlex.split(service["ExecStart"])
    check_command(words)
    # It would end at once.
    assert "--detach" not in words
    assert service["Restart"] == "always"
    # Only the foreground process gets SIGTERM, and drains the others in order.
    assert service["KillMode"] == "mixed"
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "PrivateDevices"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    # Java compiles at run time.
    assert "MemoryDenyWriteExecute" not in service
    written = service["ReadWritePaths"].split()
    assert {Path(path).name for path in written} == {".newshelf", "model_store"}


def test_the_timer_starts_a_service_that_retrains() -> None:
    read = read_units()
    service = read["newshelf-retrain.service"]["Service"]
    check_command(shlex.split(service["ExecStart"]))
    assert service["Type"] == "oneshot"
    assert service["SuccessExitStatus"] == "3"
    # The timer starts the service of its own name.
    timer = read["newshelf-retrain.timer"]
    assert re.fullmatch(r"Sun \d\d:\d\d", timer["Timer"]["OnCalendar"])
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_units(path: Path, tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/newshelf", str(DEPLOY.parent))
        (tmp_path / unit.name).write_text(text.replace("User=newshelf\n", ""))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
