"""The contenders' environments."""

import sys
import sysconfig
from pathlib import Path

from rich.console import Console

from benchmarks.environments import make_environment, required_python

__all__ = ["peers_python", "stock_python"]

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_VARIABLE = "NEWSHELF_SERVE_PEERS"
_CAPTUM = "captum==0.9.0"
"""Imported by TorchServe's own picture handlers, and by nothing else here."""


def peers_python(work: Path, console: Console) -> Path:
    """The interpreter with the peers' servers; errors as of ``required_python``."""
    return required_python(_VARIABLE, work / "peers", _REQUIREMENTS, console)


def stock_python(work: Path, console: Console) -> Path:
    """Newshelf's own interpreter with captum beside its packages, for the stock handlers.

    The same TorchServe and the same torch as Newshelf's, so that only the handler differs.

    Raises:
        SetupError: captum cannot be installed.
    """
    folder = work / "stock"
    python = make_environment(folder, _CAPTUM, ["--no-deps", _CAPTUM], console)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "newshelf.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return python
