"""Peers' environments: made once, made anew when what is wanted changes, or named."""

import subprocess
from io import StringIO
from pathlib import Path
from zipfile import ZipFile

import pytest
from rich.console import Console

from benchmarks.environments import make_environment, required_python
from newshelf.errors import SetupError


@pytest.fixture
def said() -> Console:
    return Console(file=StringIO(), width=200)


def wheel(folder: Path, version: str) -> Path:
    """A package that installs without a registry."""
    path = folder / f"peer-{version}-py3-none-any.whl"
    about = f"peer-{version}.dist-info"
    with ZipFile(path, "w") as archive:
        archive.writestr("peer.py", f"version = {version!r}\n")
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: peer\nVersion: {version}\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def version_of(python: Path) -> str:
    words = [str(python), "-I", "-c", "import peer; print(peer.version)"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_made_once_and_anew_when_something_else_is_wanted(
    tmp_path: Path, said: Console
) -> None:
    folder = tmp_path / "peers"
    first, second = (["--no-index", str(wheel(tmp_path, version))] for version in ("1.0", "2.0"))
    python = make_environment(folder, "peer 1.0", first, said)
    assert version_of(python) == "1.0"
    assert make_environment(folder, "peer 1.0", second, said) == python
    assert version_of(python) == "1.0"
    make_environment(folder, "peer 2.0", second, said)
    assert version_of(python) == "2.0"


def test_what_cannot_be_installed_is_told_and_tried_again(tmp_path: Path, said: Console) -> None:
    folder = tmp_path / "peers"
    for _ in range(2):
        with pytest.raises(SetupError, match=r"no-such-peer"):
            make_environment(folder, "it", ["--no-index", "no-such-peer"], said)


def test_another_interpreter_may_be_named(
    tmp_path: Path, said: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "python"
    monkeypatch.setenv("PEERS", str(there))
    requirements = tmp_path / "requirements.txt"
    with pytest.raises(SetupError, match=r"PEERS .*python"):
        required_python("PEERS", tmp_path / "peers", requirements, said)
    there.touch()
    assert required_python("PEERS", tmp_path / "peers", requirements, said) == there
