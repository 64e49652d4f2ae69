"""The same pipeline without a server: processes that call the predictor in a loop.

What a server can reach at most: parsing, decoding, the graph and writing the answer are all
there, and no socket, no queue and no other language's process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.serve.errors import BenchmarkError
from newshelf.pipeline.workspace import ROOT

__all__ = ["Found", "Loop", "run_in_process"]

_SCRIPT = "benchmarks.serve.inprocess_worker"
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Loop:
    """How many processes call how."""

    processes: int
    threads: int
    """Of the runtime, in each process."""
    batch_size: int
    decode_threads: int = 1

    def words(self) -> str:
        """For a table."""
        return f"{self.processes} × {self.threads} threads, batch {self.batch_size}"


@dataclass(frozen=True)
class Found:
    """What the loop did."""

    per_second: float
    """Pictures, of all processes."""
    p50_ms: float
    """One call of the predictor."""
    p99_ms: float


def run_in_process(directory: Path, pictures: Sequence[Path], loop: Loop, seconds: float) -> Found:
    """Call the encoder's predictor for ``seconds`` in each process.

    Args:
        directory: an unpacked archive.
        pictures: JPEG files, sent in turn.
        loop: how.
        seconds: after a warm-up of one call per picture, at most 2 s.

    Raises:
        BenchmarkError: a process failed, or an answer was not 200.
    """
    plan = {
        "directory": str(directory),
        "pictures": [str(path) for path in pictures],
        "seconds": seconds,
        **asdict(loop),
    }
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(loop.threads)}
    with ExitStack() as stack:
        processes = []
        for _ in range(loop.processes):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", _SCRIPT, json.dumps(plan)],
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            _expect(process, "ready")
        for process in processes:
            # All at once, when the last has loaded.
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate(timeout=_TIMEOUT_S)[0]) for process in processes]
    return Found(
        per_second=sum(part["pictures"] / part["seconds"] for part in found),
        p50_ms=max(part["p50_ms"] for part in found),
        p99_ms=max(part["p99_ms"] for part in found),
    )


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    said = process.stdout.readline().strip()
    if said != word:
        raise BenchmarkError(f"a process of the loop failed: {said or 'it ended'}")
