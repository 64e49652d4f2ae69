"""What a measurement was made with: versions, hardware, the state of the sources."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from newshelf import __version__
from newshelf.pipeline.workspace import ROOT

__all__ = ["commit", "hardware", "newshelf_version", "shown_path", "versions"]

_LIBRARIES = ("torch", "numpy", "timm", "scikit-learn")
_CPU_INFO = Path("/proc/cpuinfo")
_GIB = 1 << 30
_EXTENSIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
}
"""What Linux calls them, and everybody else. int8 and bfloat16 are several times as fast with
those from VNNI on."""


def versions() -> dict[str, str]:
    """Python, the libraries that compute, and newshelf itself."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"newshelf": newshelf_version(), "python": platform.python_version(), **libraries}


def hardware() -> str:
    """CPU with what it has for matrices, cores and memory; nothing that names the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / _GIB
    return f"{_cpu()}, {cores} cores, {memory:.0f} GiB memory"


def commit() -> str | None:
    """The commit of the sources, with ``+`` when they were changed since; None without git."""
    head = _git("rev-parse", "--short", "HEAD")
    if head is None:
        return None
    # Measured results lie in docs and change with every task, no source does.
    changed = _git("status", "--porcelain", "--", "*.py", "*.toml", "requirements.lock")
    return f"{head}+" if changed else head


def shown_path(path: Path) -> str:
    """Relative to the repository; of what is far from it, only the name."""
    relative = Path(os.path.relpath(path, ROOT))
    return f"…/{path.name}" if relative.parts[:2] == ("..", "..") else str(relative)


def newshelf_version() -> str:
    """The version, with the commit of the sources where git knows it."""
    found = commit()
    return f"{__version__} ({found})" if found else __version__


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    words: Sequence[str] = (git, "-C", str(ROOT), *arguments)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    flags = (_cpu_info("flags") or "").split()
    extensions = dict.fromkeys(word for flag, word in _EXTENSIONS.items() if flag in flags)
    return f"{name} with {', '.join(extensions)}" if extensions else name


def _cpu_info(wanted: str) -> str | None:
    """What Linux tells of the first core."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == wanted:
                return value.strip()
    return None
