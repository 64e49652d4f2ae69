"""The load generator's output, and what is refused as a result."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from benchmarks.results import BenchmarkError
from benchmarks.serve.wrk import Request, parse_wrk, require_wrk
from newshelf.pipeline.workspace import ROOT

SCRIPT = ROOT / "benchmarks" / "serve" / "wrk.lua"
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


RUN_SCRIPT = """
function(script, read, format, threads)
  wrk = {format = format}
  lines = {}
  print = function(line) table.insert(lines, line) end
  io.open = function(path)
    return {read = function() return read(path) end, close = function() end}
  end
  assert(loadstring(script))()
  for _ = 1, threads do setup({get = function(_, name) return _G[name] end}) end
  return _G
end
"""


class Script:
    """``wrk.lua`` in one thread of the Lua that wrk has, with wrk's part played by the test."""

    def __init__(self, table, least_bytes=1, pause_ms=0.0):
        lua = LuaRuntime(encoding=None)
        self.sent = []
        self.lua = lua.eval(RUN_SCRIPT)(
            SCRIPT.read_bytes(), lambda path: Path(path.decode()).read_bytes(), self.format, 1
        )
        self.table = lua.table_from
        arguments = [str(table).encode(), b"%d" % least_bytes, b"%f" % pause_ms]
        self.lua.init(self.table(arguments))

    def format(self, method, path, headers, body):
        """Keep a request where wrk would make its bytes."""
        self.sent.append((method, path, dict(headers.items()), body))
        return len(self.sent)

    def next_request(self):
        return self.sent[self.lua.request() - 1]

    def result(self):
        """Let one thread end; return what the script prints."""
        errors = self.table({b"connect": 0, b"read": 0, b"write": 0, b"timeout": 0})
        counts = {b"requests": 3, b"duration": 1_000_000, b"bytes": 9, b"errors": errors}
        times = {b"mean": 1.0, b"stdev": 0.0, b"max": 2.0, b"percentile": lambda *_: 1}
        self.lua.done(self.table(counts), self.table(times), None)
        return self.lua.lines[1].decode()


@pytest.fixture
def script(tmp_path):
    """Load the script with a POST request for each body."""

    def start(bodies, **options):
        lines = []
        for number, body in enumerate(bodies):
            path = tmp_path / f"{number}.bin"
            path.write_bytes(body)
            lines.append(Request(f"/at/{number}", path, {"Authorization": "Bearer x: y"}).line())
        table = tmp_path / "requests.tsv"
        table.write_text("".join(f"{line}\n" for line in lines))
        return Script(table, **options)

    return start


def test_every_request_is_sent_in_turn_as_it_is(script):
    bodies = [b"\xff\xd8\x00picture\r\n\x00", b"second", b""]
    wrk = script(bodies)
    headers = {b"Authorization": b"Bearer x: y"}
    turn = [(b"POST", b"/at/%d" % number, headers, body) for number, body in enumerate(bodies)]
    assert [wrk.next_request() for _ in range(7)] == [*turn, *turn, turn[0]]


def test_right_answers_are_a_result(script):
    wrk = script([b"a"], least_bytes=3)
    for body in (b"abc", b"abcd", b"abc"):
        wrk.lua.response(200, None, body)
    assert parse_wrk(wrk.result(), clients=1).per_second == 3


def test_a_status_other_than_200_is_found(script):
    wrk = script([b"a", b"b"])
    wrk.lua.response(200, None, b"answer")
    wrk.lua.response(503, None, b"answer")
    with pytest.raises(BenchmarkError, match="other_status 1"):
        parse_wrk(wrk.result(), clients=1)


def test_a_short_answer_is_found(script):
    wrk = script([b"x"], least_bytes=50)
    wrk.lua.response(200, None, b"y" * 49)
    wrk.lua.response(200, None, b"y" * 50)
    with pytest.raises(BenchmarkError, match="short 1"):
        parse_wrk(wrk.result(), clients=1)


def test_pauses_are_exponential(script):
    wrk = script([b"a"], pause_ms=200.0)
    pauses = np.array([wrk.lua.delay() for _ in range(20_000)])
    assert pauses.min() >= 0
    assert pauses.mean() == pytest.approx(200, rel=0.05)
    assert pauses.std() == pytest.approx(200, rel=0.05)
