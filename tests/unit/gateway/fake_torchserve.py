"""TorchServe on the wire: a real socket, answers by the fake predictors, and faults on demand."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from newshelf.serving.protocol import RawRequest
from tests.fake_predictors import FakeEncoderPredictor, FakeRecommenderPredictor

__all__ = ["ALIVE", "Asked", "FakeTorchServe", "broken", "closed", "late", "raw", "status"]


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """The how manyth connection it came on."""
    reader: asyncio.StreamReader
    """Of the connection: at its end when the client hung up."""

    @property
    def version(self) -> str:
        """Of ``/predictions/MODEL/VERSION``; empty for the default."""
        return self.path.removeprefix("/predictions/").partition("/")[2]


Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def _http(code: int, body: bytes, content_type: str = "application/json") -> bytes:
    return (
        f"HTTP/1.1 {code} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def ALIVE(asked: Asked, writer: asyncio.StreamWriter) -> None:  # noqa: N802
    """Answers as the models would; the version's name is in the answer."""
    version = asked.version or "default00000"
    row = RawRequest({"body": asked.body}, asked.headers.get("content-type", ""), "r")
    predictor = (
        FakeEncoderPredictor(version)
        if "/encoder" in asked.path
        else FakeRecommenderPredictor(model_version=version, index_version=f"index-{version}")
    )
    (answer,) = predictor.predict([row])
    writer.write(_http(answer.status, answer.body))


def status(code: int, body: bytes = b'{"code": 503, "message": "Model is busy"}') -> Behaviour:
    """Answers so."""

    async def behave(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(_http(code, body))

    return behave


def raw(data: bytes) -> Behaviour:
    """Sends these bytes, and waits."""

    async def behave(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave


async def closed(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Hangs up without a byte."""
    writer.transport.abort()


async def broken(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Hangs up in the middle of an answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


def late(seconds: float, then: Behaviour = ALIVE) -> Behaviour:
    """Answers after a while."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(asked, writer)

    return behave


@dataclass
class FakeTorchServe:
    """Serves in a thread of its own; to be used as a context.

    ``behaviours`` are used up one by one; after them, ``always``, or the version's own.
    """

    port: int = 0
    always: Behaviour = ALIVE
    by_version: dict[str, Behaviour] = field(default_factory=dict)
    behaviours: list[Behaviour] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    token: str | None = None
    """What predictions must carry."""
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def last_body(self) -> dict[str, Any]:
        """The JSON of the last prediction that was asked for."""
        body: dict[str, Any] = json.loads(self.asked[-1].body)
        return body

    def __enter__(self) -> "FakeTorchServe":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(first.split()[1], headers, body, number, reader)
                self.asked.append(asked)
                await self._behaviour(asked)(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            writer.transport.abort()

    def _behaviour(self, asked: Asked) -> Behaviour:
        if self.token is not None and asked.headers.get("authorization") != f"Bearer {self.token}":
            return status(400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token"}')
        if self.behaviours:
            return self.behaviours.pop(0)
        return self.by_version.get(asked.version, self.always)
