"""The load generator's output, and what is refused as a result."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.results import BenchmarkError
from benchmarks.serve.wrk import Request, load, parse_wrk, require_wrk

FOUND = {
    "requests": 1000,
    "duration_us": 2_000_000,
    "bytes": 5_000_000,
    "mean_us": 900.5,
    "stdev_us": 100.0,
    "p50_us": 800,
    "p90_us": 1500,
    "p99_us": 2500,
    "max_us": 9000,
    "connect": 0,
    "read": 0,
    "write": 0,
    "timeout": 0,
    "other_status": 0,
    "short": 0,
}


def printed(**changed):
    report = "Running 2s test @ http://127.0.0.1:1\n  1 threads and 32 connections\n"
    return f"{report}Requests/sec:    500.00\n{json.dumps({**FOUND, **changed})}\n"


def test_a_load_is_read_from_what_wrk_prints():
    found = parse_wrk(printed(), clients=32)
    assert found.per_second == 500.0
    assert (found.clients, found.requests) == (32, 1000)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (0.8, 1.5, 2.5, 9.0)


@pytest.mark.parametrize(
    "failure", ["connect", "read", "write", "timeout", "other_status", "short"]
)
@given(count=st.integers(1, 1000))
def test_a_load_with_one_bad_answer_is_no_result(failure, count):
    with pytest.raises(BenchmarkError, match=f"{failure} {count}"):
        parse_wrk(printed(**{failure: count}), clients=32)


def test_a_load_without_an_answer_is_no_result():
    with pytest.raises(BenchmarkError, match="no answer"):
        parse_wrk(printed(requests=0), clients=1)


def test_output_without_a_result_is_shown():
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n", clients=1)


def test_without_wrk_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchmarkError, match="apt-get install wrk"):
        require_wrk()


@pytest.mark.parametrize("value", ["a\tb", "a\nb", "a\rb"])
def test_a_header_that_would_split_the_request_is_refused(value, tmp_path):
    with pytest.raises(BenchmarkError, match="tab or a line's end"):
        Request("/", tmp_path, {"X": value}).line()


class Server(ThreadingHTTPServer):
    """Answers with what it is given for each body, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.seen = answers, []

    def handle_error(self, request, client_address):
        """The load ends in the middle of requests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        status, answer = self.server.answers(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def ask(tmp_path):
    """Load a server that answers with a function of the body; return load and server."""

    def run(answers, bodies, **options):
        server = Server(answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        requests = []
        for number, body in enumerate(bodies):
            path = tmp_path / f"{number}.bin"
            path.write_bytes(body)
            requests.append(Request(f"/at/{number}", path, {"Authorization": "Bearer x: y"}))
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            return load(url, requests, clients=2, seconds=1, **options), server
        finally:
            server.shutdown()
            server.server_close()

    return run


def test_every_request_is_sent_in_turn_as_it_is(ask):
    bodies = [b"\xff\xd8\x00picture\r\n\x00", b"second", b""]
    found, server = ask(lambda body: (200, body + b"!"), bodies)
    assert found.requests > 3
    assert found.per_second > 0
    assert {seen[2] for seen in server.seen} == set(bodies)
    assert {seen[0] for seen in server.seen} == {"/at/0", "/at/1", "/at/2"}
    assert {seen[1] for seen in server.seen} == {"Bearer x: y"}
    counts = [sum(seen[2] == body for seen in server.seen) for body in bodies]
    # Two connections, each cut off in the middle of a turn at most.
    assert max(counts) - min(counts) <= 3


def test_a_status_other_than_200_is_found(ask):
    with pytest.raises(BenchmarkError, match="other_status"):
        ask(lambda body: (503 if body == b"b" else 200, b"answer"), [b"a", b"b"])


def test_a_short_answer_is_found(ask):
    with pytest.raises(BenchmarkError, match="short"):
        ask(lambda body: (200, body), [b"x" * 100, b"y"], least_bytes=50)
