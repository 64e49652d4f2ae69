"""How long searches take, how much of the truth they find, and what memory allows."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.serve.search_data import FloatArray
from newshelf.serving.search.blocks import top_products

__all__ = ["IntArray", "Timed", "recall", "streaming", "timed", "truth"]

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
Ask = Callable[[FloatArray, Mask, int], IntArray]


@dataclass(frozen=True)
class Timed:
    """The answers to some queries and how long each took."""

    answers: Sequence[IntArray]
    ms: Sequence[float]
    before: Sequence[float] = ()
    """What was measured before each of them."""

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.ms, share))


def timed(
    ask: Ask,
    queries: FloatArray,
    allowed: Mask,
    limit: int,
    before: Callable[[], float] | None = None,
) -> Timed:
    """Ask one query after the other; the first is asked once more, before it counts.

    NumPy's products take one thread, as in a worker (``newshelf.server.torchserve``): a second
    one waits for the next product by spinning, on the core that a scan would use.

    Args:
        ask: a search.
        queries: ``(Q, D)``.
        allowed: ``(N,)``.
        limit: so many are asked for.
        before: called before each query, outside its time.
    """
    answers, times, others = [], [], []
    with threadpool_limits(1, user_api="blas"):
        ask(queries[0], allowed, limit)
        for query in queries:
            if before is not None:
                others.append(before())
            start = time.perf_counter()
            answers.append(ask(query, allowed, limit))
            times.append((time.perf_counter() - start) * 1e3)
    return Timed(answers, times, others)


def truth(matrix: FloatArray, queries: FloatArray, allowed: Mask, limit: int) -> list[IntArray]:
    """The nearest by float32, from all products."""
    masks = np.broadcast_to(allowed, (len(queries), len(allowed)))
    return top_products(matrix, queries, limit, masks)


def recall(answers: Sequence[IntArray], true: Sequence[IntArray]) -> float:
    """Share of the true nearest that were found, over all queries.

    Raises:
        AssertionError: an answer is longer or shorter than the truth, or repeats a row.
    """
    found = 0
    for answer, rows in zip(answers, true, strict=True):
        if len(set(answer.tolist())) != len(rows) or len(answer) != len(rows):
            raise AssertionError(f"{len(answer)} rows were answered where {len(rows)} exist")
        found += len(np.intersect1d(answer, rows))
    return found / sum(len(rows) for rows in true)


@contextmanager
def streaming(path: Path) -> Iterator[Callable[[], float]]:
    """Reads a file's mapped bytes once per call: what no search of them can fall below.

    Each of one or two threads takes the bitwise "or" of its share as 64-bit words. A call
    returns the milliseconds of the faster number of threads. Mapping the file and starting
    the threads count for nothing.
    """
    words = np.asarray(
        np.memmap(path, dtype=np.uint64, mode="r", shape=(path.stat().st_size // 8,))
    )

    def read(threads: int) -> float:
        start = time.perf_counter()
        list(pool.map(np.bitwise_or.reduce, np.array_split(words, threads)))
        return (time.perf_counter() - start) * 1e3

    with ThreadPoolExecutor(2) as pool:
        read(2)
        yield lambda: min(read(1), read(2))
