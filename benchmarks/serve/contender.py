"""Servers that are measured: started, asked, checked and stopped."""

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
    """The picture is the body."""
    return picture


def read_embedding(answer: bytes) -> NDArray[np.float32]:
    """``{"embedding": […]}`` → ``(512,)``."""
    return np.asarray(json.loads(answer)["embedding"], dtype=np.float32)


@dataclass(frozen=True)
class Endpoint:
    """A running server, and how a picture is sent to it."""

    url: str
    path: str
    process: ProcessRef
    headers: Mapping[str, str] = field(default_factory=lambda: JPEG)
    body: Callable[[bytes], bytes] = as_is
    """From a picture's bytes to the request's."""
    read: Callable[[bytes], NDArray[np.float32]] = read_embedding
    """From an answer to what is compared with the reference."""
    expected: Callable[[Sequence[Path]], NDArray[np.float32]] | None = None
    """What it must answer, when that is not the encoder's embedding."""

    def ask(self, picture: Path) -> NDArray[np.float32]:
        """Send one picture by a plain client, and read what is compared.

        Raises:
            BenchmarkError: it was not answered with 200.
        """
        return self.read(self.ask_bytes(picture))

    def ask_bytes(self, picture: Path) -> bytes:
        """The body of one answer.

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
        """One request per picture; bodies that are not the picture itself go to ``folder``."""
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
        """What it is called in tables; unique within a measurement."""
        ...

    @property
    def layout(self) -> str:
        """Workers, threads and batching, for a reader."""
        ...

    def run(self) -> AbstractContextManager[Endpoint]:
        """Start it, and end it afterwards. It need not answer yet."""
        ...


@contextmanager
def running(
    command: list[str], *, cwd: Path, env: Mapping[str, str], log: Path
) -> Iterator[ProcessRef]:
    """A process with all its descendants, ended on the way out."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    process = start_session(command, cwd=cwd, env=env, log=log)
    try:
        yield process
    finally:
        stop_session(process)


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
