"""Contenders: servers that are started, queried, checked and stopped."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import BenchmarkError
from benchmarks.serve.wrk import Request
from newshelf.server.process import ProcessRef, is_running, start_session, stop_session

JPEG: Mapping[str, str] = {"Content-Type": "image/jpeg"}


def as_is(picture: bytes) -> bytes:
    """Send the picture as the body."""
    return picture


def read_embedding(answer: bytes) -> NDArray[np.float32]:
    """Return the ``(512,)`` embedding of ``{"embedding": […]}``."""
    return np.asarray(json.loads(answer)["embedding"], dtype=np.float32)


@dataclass(frozen=True)
class Endpoint:
    """A running server, and the format of its requests and answers."""

    url: str
    path: str
    process: ProcessRef
    headers: Mapping[str, str] = field(default_factory=lambda: JPEG)
    body: Callable[[bytes], bytes] = as_is
    """Bytes of a picture → body of a request."""
    read: Callable[[bytes], NDArray[np.float32]] = read_embedding
    """Body of an answer → vector to compare with the reference."""
    expected: Callable[[Sequence[Path]], NDArray[np.float32]] | None = None
    """Right answers, if they are not the encoder's embeddings."""

    def ask(self, picture: Path) -> NDArray[np.float32]:
        """Send one picture and return the vector of the answer.

        Raises:
            BenchmarkError: it was not answered with 200.
        """
        return self.read(self.ask_bytes(picture))

    def ask_bytes(self, picture: Path) -> bytes:
        """Send one body and return that of the answer.

        Raises:
            BenchmarkError: it was not answered with 200.
        """
        body = self.body(picture.read_bytes())
        answer = httpx.post(
            self.url + self.path,
            content=body,
            headers=dict(self.headers),
            timeout=60,
            trust_env=False,
        )
        if answer.status_code != httpx.codes.OK:
            raise BenchmarkError(f"{self.url} answered {answer.status_code}: {answer.text[:300]}")
        return answer.content

    def requests(self, pictures: list[Path], folder: Path) -> list[Request]:
        """Return a request per picture; bodies that differ from the picture go to ``folder``."""
        return [
            Request(self.path, self._file(picture, folder), self.headers) for picture in pictures
        ]

    def _file(self, picture: Path, folder: Path) -> Path:
        if self.body is as_is:
            return picture
        file = folder / f"{picture.stem}.body"
        file.write_bytes(self.body(picture.read_bytes()))
        return file


class Contender(Protocol):
    """One server with one layout."""

    @property
    def name(self) -> str:
        """Name in tables; unique within a measurement."""
        ...

    @property
    def layout(self) -> str:
        """Workers, threads and batching, in words."""
        ...

    def run(self) -> AbstractContextManager[Endpoint]:
        """Start the server, which need not answer yet, and stop it afterwards."""
        ...


@contextmanager
def running(
    command: list[str], *, cwd: Path, env: Mapping[str, str], log: Path
) -> Iterator[ProcessRef]:
    """Start a process; stop it and its descendants on exit."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    process = start_session(command, cwd=cwd, env=env, log=log)
    try:
        yield process
    finally:
        stop_session(process)


LEAST_COSINE = 0.99
"""Mean over the pictures, as in the gate of the export."""
_LEAST_OF_ONE = 0.95
"""Of each picture: a wrong decode or a swapped row is far below, an int8 error is not."""
_PAUSE_S = 0.3


def wait_for_answer(endpoint: Endpoint, body: Path, *, timeout_s: float = 180.0) -> None:
    """Send a request until the server answers with 200.

    Raises:
        BenchmarkError: it ended, or the time is over; with its last answer.
    """
    end = time.monotonic() + timeout_s
    last = "nothing"
    while time.monotonic() < end:
        try:
            endpoint.ask_bytes(body)
        except (httpx.TransportError, BenchmarkError) as error:
            last = str(error)
        else:
            return
        if not is_running(endpoint.process):
            raise BenchmarkError("the server ended while starting; see its log")
        time.sleep(_PAUSE_S)
    raise BenchmarkError(f"no answer within {timeout_s:.0f} s; the last was: {last}")


def check_answers(
    endpoint: Endpoint, pictures: Sequence[Path], reference: NDArray[np.float32] | None
) -> float:
    """Compare the answers to ``pictures`` with ``reference`` (one row each).

    An endpoint's own ``expected`` answers take precedence.

    Returns:
        The mean cosine.

    Raises:
        BenchmarkError: it is below ``LEAST_COSINE``, or one picture's is far below, or there is
            no reference.
    """
    expected = reference if endpoint.expected is None else endpoint.expected(pictures)
    if expected is None:
        raise BenchmarkError(f"there is no reference for {endpoint.url}")
    found = np.stack([endpoint.ask(picture) for picture in pictures])
    similarity = cosines(found, expected)
    mean, least = float(similarity.mean()), float(similarity.min())
    # Written so that a NaN fails.
    if not (mean >= LEAST_COSINE and least >= _LEAST_OF_ONE):
        raise BenchmarkError(
            f"the answers are wrong: cosine to the reference {mean:.4f} on average and "
            f"{least:.4f} at worst; {LEAST_COSINE} and {_LEAST_OF_ONE} are needed"
        )
    return mean


def cosines(found: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each row to its reference, ``(N,)``.

    Raises:
        BenchmarkError: the shapes differ.
    """
    if found.shape != reference.shape:
        raise BenchmarkError(f"answers of shape {found.shape}, reference {reference.shape}")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    cosine: NDArray[np.float32] = (found * reference).sum(axis=1) / lengths
    return cosine
