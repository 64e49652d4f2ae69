"""The same pipeline without a server: processes that call the predictor in a loop.

It is the most that a server can reach: parsing, decoding, the graph and writing the answer are
there; sockets, a queue and another language's process are not.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import module_command, module_environment
from benchmarks.results import BenchmarkError
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.model_config import read_model_config
from newshelf.serving.protocol import Predictor, RawRequest
from newshelf.serving.settings import ServingSettings

_TIMEOUT_S = 300


@dataclass(frozen=True)
class Loop:
    """Layout of a loop."""

    processes: int
    threads: int
    """Threads of the runtime in each process."""
    batch_size: int
    decode_threads: int = 1

    def words(self) -> str:
        """Return the layout in words."""
        return f"{self.processes} × {self.threads} threads, batch {self.batch_size}"


@dataclass(frozen=True)
class LoopResult:
    """Throughput and latency of a loop."""

    per_second: float
    """Pictures of all processes."""
    p50_ms: float
    """Of a call of the predictor."""
    p99_ms: float


def run_in_process(
    directory: Path, pictures: Sequence[Path], loop: Loop, seconds: float
) -> LoopResult:
    """Call the encoder's predictor for ``seconds`` in each process.

    A warm-up of one call per picture, at most 2 s, comes first.

    Raises:
        BenchmarkError: a process failed, or an answer was not 200.
    """
    plan = {
        "directory": str(directory),
        "pictures": [str(path) for path in pictures],
        "seconds": seconds,
        **asdict(loop),
    }
    with ExitStack() as stack:
        processes = []
        for _ in range(loop.processes):
            process = stack.enter_context(
                subprocess.Popen(
                    module_command("benchmarks.serve.inprocess", json.dumps(plan)),
                    env=module_environment(loop.threads),
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
            # All at once, after the last has loaded.
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate(timeout=_TIMEOUT_S)[0]) for process in processes]
    return LoopResult(
        per_second=sum(part["pictures"] / part["seconds"] for part in found),
        p50_ms=max(part["p50_ms"] for part in found),
        p99_ms=max(part["p99_ms"] for part in found),
    )


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    said = process.stdout.readline().strip()
    if said != word:
        raise BenchmarkError(f"a process of the loop failed: {said or 'it ended'}")


_OK = 200
_WARM_UP_S = 2.0


def _work(plan: dict[str, Any]) -> None:
    """Load, print ``ready``, wait for a line, then call until the time is over."""
    directory = Path(plan["directory"])
    config = read_model_config(directory)
    config["serving"] |= {"threads": plan["threads"], "decode_threads": plan["decode_threads"]}
    predictor = load_encoder_predictor(
        directory, settings=ServingSettings.from_model_config(config)
    )
    rows = [
        RawRequest({"body": Path(path).read_bytes()}, "image/jpeg") for path in plan["pictures"]
    ]
    batches = _batches(rows, plan["batch_size"])
    _calls(predictor, batches, min(_WARM_UP_S, plan["seconds"]))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    taken = _calls(predictor, batches, plan["seconds"])
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "pictures": len(taken) * plan["batch_size"],
                "seconds": seconds,
                "p50_ms": float(np.percentile(taken, 50)) * 1e3,
                "p99_ms": float(np.percentile(taken, 99)) * 1e3,
            }
        )
    )


def _batches(rows: list[RawRequest], size: int) -> Iterator[list[RawRequest]]:
    endless = cycle(rows)
    while True:
        yield list(islice(endless, size))


def _calls(
    predictor: Predictor, batches: Iterator[list[RawRequest]], seconds: float
) -> list[float]:
    """Return the seconds of each call."""
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        answers = predictor.predict(next(batches))
        taken.append(time.perf_counter() - start)
        for answer in answers:
            if answer.status != _OK:
                sys.exit(f"an answer was {answer.status}: {answer.body[:300]!r}")
    return taken


if __name__ == "__main__":
    _work(json.loads(sys.argv[1]))
