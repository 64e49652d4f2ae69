"""What the disk itself takes to make a write durable."""

import os
import tempfile
import time
from pathlib import Path

__all__ = ["sync_ms"]

_BYTES = 16 * 1024
_WRITES = 200


def sync_ms(folder: Path) -> list[float]:
    """``(200,)``: write 16 KiB at the end of a file, and wait for ``fdatasync``."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_WRITES):
            os.write(file.fileno(), b"x" * _BYTES)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e3)
    return taken
