"""What is measured: a server that can be started, asked and ended."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.errors import BenchmarkError
from benchmarks.serve.load import Request
from newshelf.server.process import ProcessRef, start_session, stop_session

__all__ = ["JPEG", "Contender", "Endpoint", "as_is", "read_embedding", "running"]

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
