"""The contenders' environments: made when they are missing, from pinned versions."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.serve.errors import BenchmarkError

__all__ = ["peers_python", "stock_python"]

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_VARIABLE = "NEWSHELF_SERVE_PEERS"
_CAPTUM = "captum==0.9.0"
"""Imported by TorchServe's own picture handlers, and by nothing else here."""
_STAMP = "installed.txt"


def peers_python(work: Path, console: Console) -> Path:
    """The interpreter with the peers' servers.

    Raises:
        BenchmarkError: the one that NEWSHELF_SERVE_PEERS names is not there, or the
            packages cannot be installed.
    """
    named = os.environ.get(_VARIABLE)
    if named is not None:
        if not Path(named).exists():
            raise BenchmarkError(f"{_VARIABLE} names {named}, which is not there")
        return Path(named)
    wanted = _REQUIREMENTS.read_text(encoding="utf-8")
    return _environment(work / "peers", wanted, ["--requirement", str(_REQUIREMENTS)], console)


def stock_python(work: Path, console: Console) -> Path:
    """Newshelf's own interpreter with captum beside its packages, for the stock handlers.

    The same TorchServe and the same torch as Newshelf's, so that only the handler differs.

    Raises:
        BenchmarkError: captum cannot be installed.
    """
    folder = work / "stock"
    python = _environment(folder, _CAPTUM, ["--no-deps", _CAPTUM], console)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "newshelf.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return python


def _environment(folder: Path, wanted: str, install: Sequence[str], console: Console) -> Path:
    python, stamp = folder / "bin" / "python", folder / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    console.print(f"setting up {folder} (once) …", markup=False)
    shutil.rmtree(folder, ignore_errors=True)
    _done([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    _done([*pip, *install])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _done(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed: {done.stderr.strip()[-800:]}")
