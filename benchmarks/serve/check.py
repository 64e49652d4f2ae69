"""Whether a contender answers, and answers rightly; before it is timed."""

import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.contender import Endpoint
from benchmarks.serve.errors import BenchmarkError
from newshelf.server.process import is_running

__all__ = ["LEAST_COSINE", "check_answers", "cosines", "wait_for_answer"]

LEAST_COSINE = 0.99
"""Of the mean picture, as the export's gate has it."""
_LEAST_OF_ONE = 0.95
"""Of each: a wrong decode or a swapped row is far below, int8 on a strange picture is not."""
_PAUSE_S = 0.3


def wait_for_answer(endpoint: Endpoint, body: Path, *, timeout_s: float = 180.0) -> None:
    """Ask until the server answers with 200.

    Raises:
        BenchmarkError: it ended, or the time is over; with what it answered last.
    """
    end = time.monotonic() + timeout_s
    said = "nothing"
    while time.monotonic() < end:
        try:
            endpoint.ask_bytes(body)
        except (httpx.TransportError, BenchmarkError) as error:
            said = str(error)
        else:
            return
        if not is_running(endpoint.process):
            raise BenchmarkError("the server ended while it started; its log tells why")
        time.sleep(_PAUSE_S)
    raise BenchmarkError(f"no answer within {timeout_s:.0f} s; the last was: {said}")


def check_answers(
    endpoint: Endpoint, pictures: Sequence[Path], reference: NDArray[np.float32] | None
) -> float:
    """Compare the answers to ``pictures`` with ``reference`` (one row each), or with what the
    endpoint itself says must come.

    Returns:
        The mean cosine.

    Raises:
        BenchmarkError: it is below ``LEAST_COSINE``, or one picture's is far below, or there is
            nothing to compare with.
    """
    expected = reference if endpoint.expected is None else endpoint.expected(pictures)
    if expected is None:
        raise BenchmarkError(f"nothing is known that {endpoint.url} must answer")
    found = np.stack([endpoint.ask(picture) for picture in pictures])
    likeness = cosines(found, expected)
    mean, least = float(likeness.mean()), float(likeness.min())
    # Written so that a NaN fails.
    if not (mean >= LEAST_COSINE and least >= _LEAST_OF_ONE):
        raise BenchmarkError(
            f"the answers are wrong: cosine to the reference {mean:.4f} on average and "
            f"{least:.4f} at worst; {LEAST_COSINE} and {_LEAST_OF_ONE} are needed"
        )
    return mean


def cosines(found: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each row to its reference, ``(N,)``.

    Raises:
        BenchmarkError: the shapes differ.
    """
    if found.shape != reference.shape:
        raise BenchmarkError(f"answers of shape {found.shape}, reference {reference.shape}")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    likeness: NDArray[np.float32] = (found * reference).sum(axis=1) / lengths
    return likeness
