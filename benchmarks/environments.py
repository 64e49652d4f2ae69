"""Virtual environments of the peers with pinned versions, created if missing."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from newshelf.errors import SetupError

_STAMP = "installed.txt"


def required_python(variable: str, folder: Path, requirements: Path, console: Console) -> Path:
    """Return an interpreter with the packages of a requirements file.

    ``variable`` may name another interpreter; otherwise the environment is made in ``folder``.

    Raises:
        SetupError: the named interpreter is missing, or the packages cannot be installed.
    """
    named = os.environ.get(variable)
    if named is None:
        wanted = requirements.read_text(encoding="utf-8")
        return make_environment(folder, wanted, ["--requirement", str(requirements)], console)
    if not Path(named).exists():
        raise SetupError(f"{variable} names {named}, which is not there")
    return Path(named)


def make_environment(folder: Path, wanted: str, install: Sequence[str], console: Console) -> Path:
    """Return the interpreter of an environment; create it if it is missing or outdated.

    ``wanted`` identifies the packages; ``install`` are arguments of ``pip install``.

    Raises:
        SetupError: the packages cannot be installed.
    """
    python, stamp = folder / "bin" / "python", folder / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    console.print(f"setting up {folder} (once) …", markup=False)
    shutil.rmtree(folder, ignore_errors=True)
    # This environment's pip installs into it: to set up another takes seconds.
    _done([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    pip = [sys.executable, "-I", "-m", "pip", "--python", str(python), "install"]
    _done([*pip, "--disable-pip-version-check", "--quiet", *install])
    # Otherwise gigabytes are written to the disk while the first contender is timed.
    os.sync()
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _done(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)} failed: {done.stderr.strip()[-800:]}")


_SERVE_REQUIREMENTS = Path(__file__).parent / "serve" / "requirements.txt"
_SERVE_VARIABLE = "NEWSHELF_SERVE_PEERS"
_CAPTUM = "captum==0.9.0"
"""Imported by TorchServe's own picture handlers only."""


def peers_python(work: Path, console: Console) -> Path:
    """Return the interpreter with the peers' servers; see ``required_python``."""
    return required_python(_SERVE_VARIABLE, work / "peers", _SERVE_REQUIREMENTS, console)


def stock_python(work: Path, console: Console) -> Path:
    """Return an interpreter with Newshelf's packages and captum, for the stock handlers.

    TorchServe and torch are Newshelf's, so that only the handler differs.

    Raises:
        SetupError: captum cannot be installed.
    """
    folder = work / "stock"
    python = make_environment(folder, _CAPTUM, ["--no-deps", _CAPTUM], console)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "newshelf.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return python
