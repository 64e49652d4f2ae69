"""Logs of started processes: those of earlier starts are kept, and none grows without end."""

import os
import shutil
import stat
from pathlib import Path

from newshelf.config import LogSettings

__all__ = ["LOG", "ends_of", "keep_earlier", "read_log", "rotate_own"]

LOG = "NEWSHELF_LOG"
"""The environment variable that tells a started process where its output goes."""
_STANDARD_ERROR = 2
_LAST_LINES = 25


def read_log(log: Path) -> str:
    """Its text; empty where it is missing."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def ends_of(*logs: Path) -> str:
    """The last lines of each, for an error's message."""
    said: list[str] = []
    for log in logs:
        lines = read_log(log).splitlines()[-_LAST_LINES:] or ["(empty)"]
        said += [f"the end of {log}:", *(f"  {line}" for line in lines)]
    return "\n".join(said)


def keep_earlier(log: Path, kept: int, newest: Path | None = None) -> None:
    """Make room for a new ``log``: the last one is ``log.1``, the one before ``log.2``.

    Args:
        log: the file; nothing happens where it is missing.
        kept: older files that stay.
        newest: becomes ``log.1`` instead of ``log`` itself.
    """
    newest = newest or log
    if not newest.exists():
        return
    for number in range(kept - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    newest.replace(log.with_name(f"{log.name}.1"))


def rotate_own(settings: LogSettings) -> None:
    """Keep the file that this process and its children append to below its largest size.

    The file is copied and then emptied, since the children cannot be told of another one: a line
    that is written at that very moment may be lost. Output that is no such file is left alone.
    """
    try:
        info, path = os.fstat(_STANDARD_ERROR), Path(os.environ.get(LOG, ""))
        if not stat.S_ISREG(info.st_mode) or info.st_size < settings.max_bytes:
            return
        if not path.is_file() or path.stat().st_ino != info.st_ino:
            return
        copy = path.with_name(f"{path.name}.copy")
        shutil.copyfile(path, copy)
        os.truncate(path, 0)
        keep_earlier(path, settings.kept, copy)
    except OSError:
        # A full disk, or the like: the next call tries again.
        return
