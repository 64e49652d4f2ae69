"""A server that does nothing: every request is answered 200 with ``{}``.

``python -m loadtest.noop`` prints its port and serves until it is ended.
"""

from collections.abc import Iterator

from gevent.server import StreamServer
from gevent.socket import socket

__all__ = ["ANSWER", "requests_of", "serve"]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_BLOCK = 65536


def serve(connection: socket, _address: object) -> None:
    """Answer the requests of one connection, which must say how long they are."""
    for _ in requests_of(connection):
        connection.sendall(ANSWER)


def requests_of(connection: socket) -> Iterator[int]:
    """The size in bytes of each request of a connection, as soon as all of it is there."""
    data = bytearray()
    while block := connection.recv(_BLOCK):
        data += block
        while (size := _request_size(data)) is not None and len(data) >= size:
            del data[:size]
            yield size


def _request_size(data: bytearray) -> int | None:
    head = data.find(_END)
    if head < 0:
        return None
    lines = data[:head].lower().split(b"\r\n")
    length = next((int(line[len(_LENGTH) :]) for line in lines if line.startswith(_LENGTH)), 0)
    return head + len(_END) + length


def _main() -> None:
    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _main()
