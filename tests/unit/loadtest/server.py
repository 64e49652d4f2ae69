"""A small server that answers what it is told to."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers what it is told to, and keeps what it was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, delay_s: float, statuses: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.delay_s = delay_s
        self.statuses = statuses
        self.asked: list[tuple[str, str, bytes, str]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            status = server.statuses[len(server.asked) % len(server.statuses)]
            kind, token = self.headers["Content-Type"], self.headers.get("Authorization", "")
            server.asked.append((self.path, kind, body, token))
        time.sleep(server.delay_s)
        with server.lock:
            server.at_once -= 1
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("X-Told", str(len(body)))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"
