"""What loading took and freed goes back to the system."""

import ctypes
import os
from pathlib import Path

from newshelf.serving.encoder_predictor import warm_up

PIECE, PIECES = 10_000, 6_000


class Nothing:
    def predict(self, rows):
        return []


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_freed_memory_is_given_back_after_the_warm_up():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    pieces = [ctypes.c_void_p(libc.malloc(PIECE)) for _ in range(PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE)
    # The last one stays: the allocator gives back by itself only what is above all others.
    for piece in pieces[:-1]:
        libc.free(piece)
    before = resident_bytes()
    warm_up(Nothing(), [])
    assert before - resident_bytes() > PIECE * PIECES / 2
    libc.free(pieces[-1])
