"""A stub of TorchServe: answers every request with the same recommendation.

``python -m benchmarks.gateway.stub PORT`` serves until it is stopped. It parses only the length
of a request, so that it is faster than what is measured in front of it.
"""

import asyncio
import json
import sys

import uvloop

from benchmarks.servers import request_size

_END = b"\r\n\r\n"
_ITEMS = 10


def answer() -> bytes:
    """Return a whole HTTP response: ten products, as the recommender answers."""
    body = json.dumps(
        {
            "items": [
                {"id": f"NS{number:05}", "score": 9.5 - number / 7, "source": "model"}
                for number in range(_ITEMS)
            ],
            "model_version": "0f3a9c51d2e7",
            "index_version": "77b1d0c4aa10",
            "request_id": "6f1c2a3e-0d8c-4b9e-8f1e-2a6a1f0d5c11",
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + _END + body


class _Stub(asyncio.Protocol):
    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (size := request_size(self._data)) is not None and len(self._data) >= size:
            del self._data[:size]
            self._transport.write(self._reply)  # type: ignore[attr-defined]


async def serve(port: int) -> None:
    """Serve until the process is stopped."""
    reply, loop = answer(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Stub(reply), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(serve(int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(0)
