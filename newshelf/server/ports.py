"""Ports of TorchServe and of the gateway."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields

from newshelf.errors import ServerError

HOST = "127.0.0.1"
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

    def named(self) -> Iterator[tuple[str, int]]:
        """Yield pairs such as ``("management", 8081)``."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


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


def busy_ports(ports: Ports) -> list[tuple[str, int]]:
    """Return name and number of the ports that cannot be bound."""
    return [(name, port) for name, port in ports.named() if not _can_bind(HOST, port)]


def require_free(ports: Ports) -> None:
    """Raise ``ServerError``, naming each port in use, its purpose and how to choose others."""
    busy = busy_ports(ports)
    if busy:
        named = ", ".join(f"{port} ({name.replace('_', ' ')})" for name, port in busy)
        raise ServerError(
            f"already in use on {HOST}: {named}. Is another server running (./run status)? "
            "Choose other ports with --port N (takes N to N+5) or --port 0 (any free ones)"
        )


def require_port(host: str, port: int, purpose: str) -> None:
    """Raise ``ServerError`` with its purpose if a port cannot be bound at this address."""
    if not _can_bind(host, port):
        raise ServerError(
            f"cannot listen on {host}:{port} ({purpose}): it is in use, or not an address of "
            "this machine. Choose another with --port N (takes N to N+5) or --port 0 (any free "
            "ones)"
        )


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the server itself does, so that a port that was closed just now counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
