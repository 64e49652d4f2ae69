"""Ports of TorchServe and of the gateway."""

import socket
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields

from newshelf.errors import ServerError

HOST = "127.0.0.1"
LOOPBACK = (HOST, "::1", "localhost")
_LAST = 65535


@dataclass(frozen=True)
class Ports:
    """TorchServe's five ports, on the loopback address."""

    inference: int = 8080
    management: int = 8081
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071

    @classmethod
    def starting_at(cls, first: int) -> "Ports":
        """Return ``first`` and the next four; the one after them is the gateway's."""
        if not 1 <= first <= _LAST - 5:
            raise ServerError(f"--port must lie between 1 and {_LAST - 5} (or be 0), not {first}")
        return cls(*range(first, first + 5))


def free_ports() -> Ports:
    """Return five ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in fields(Ports)]
        for opened in sockets:
            opened.bind((HOST, 0))
        return Ports(*(opened.getsockname()[1] for opened in sockets))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as opened:
        opened.bind((HOST, 0))
        port: int = opened.getsockname()[1]
    return port


def require_free(ports: Ports) -> None:
    """Raise ``ServerError``, naming each port in use, its purpose and how to choose others."""
    busy = []
    for name, port in asdict(ports).items():
        try:
            socket.create_server((HOST, port)).close()
        except OSError:
            busy.append(f"{port} ({name.replace('_', ' ')})")
    if busy:
        raise ServerError(
            f"already in use on {HOST}: {', '.join(busy)}. Is another server running (./run "
            "status)? Choose other ports with --port N (takes N to N+5) or --port 0 (any free ones)"
        )


def listen(host: str, port: int, purpose: str) -> socket.socket:
    """Return a listening socket, or raise ``ServerError`` with its purpose."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{port} ({purpose}): it is in use, or not an address of "
            "this machine. Choose another with --port N (takes N to N+5) or --port 0 (any free "
            "ones)"
        ) from error
