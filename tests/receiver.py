"""A receiver of webhooks, on a port of its own."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

from newshelf.config import WebhookSettings

PATIENCE_S = 60.0


@dataclass
class Receiver:
    """What arrived; ``statuses`` are those of the next answers, then it is 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    arrived: Queue[tuple[Message, bytes]] = field(default_factory=Queue)
    free: threading.Event = field(default_factory=threading.Event)
    """Answers wait until it is set."""

    def next(self) -> dict[str, Any]:
        """Return the next event, or raise ``queue.Empty`` after a minute."""
        _, body = self.arrived.get(timeout=PATIENCE_S)
        found: dict[str, Any] = json.loads(body)
        return found


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    found = Receiver()
    found.free.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.arrived.put((self.headers, body))
            found.free.wait()
            self.send_response(found.statuses.pop(0) if found.statuses else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}/hooks?token=secret"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.free.set()
        server.shutdown()
        server.server_close()


def settings_of(*urls: str, **further: Any) -> WebhookSettings:
    """Return settings; further ones may be invalid."""
    return WebhookSettings.model_validate({"urls": urls, **further})
