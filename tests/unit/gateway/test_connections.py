"""What strangers can do to the sockets: nothing that keeps others from an answer."""

import asyncio
import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from newshelf.config import GatewaySettings
from newshelf.gateway.keys import KeyFile
from newshelf.server.ports import Ports, free_port
from newshelf.server.process import program, stop_session, write_plan
from newshelf.server.program import GatewayPlan, wait_for_gateway
from newshelf.server.state import GatewayState, ServerState
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.fake_torchserve import ALIVE, Asked, FakeTorchServe, late

HEALTHY = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 "


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def answer(opened: socket.socket) -> bytes:
    """All that comes until the other side ends; what was sent in vain is no error."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := opened.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def exchange(url: str, request: bytes) -> bytes:
    with connect(url) as opened:
        with contextlib.suppress(ConnectionError):
            opened.sendall(request)
        return answer(opened)


def error_of(raw: bytes) -> tuple[int, str]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"]


@pytest.fixture
def alone(gateway_plan: GatewayPlan, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a gateway that runs as it is really run, and a key."""
    settings = GatewaySettings(port=free_port(), timeout_ms=10_000)
    key = KeyFile(gateway_plan.api_keys).add(
        "t", now=datetime.now(UTC), expires=None, rate_per_s=1e6
    )
    own = gateway_plan.model_copy(update={"settings": settings})
    path, log = tmp_path / "gateway.json", tmp_path / "gateway.log"
    write_plan(path, own)
    name, beat = "newshelf.gateway.main", tmp_path / "heartbeat"
    process = program("gateway", name, path, log=log, heartbeat=beat).start()
    gateway, processes = GatewayState(own.url), {"gateway-1": process}
    state = ServerState(tmp_path, Ports(), tmp_path, {}, "", gateway=gateway, processes=processes)
    try:
        wait_for_gateway(state, log)
        yield own.url, key
    finally:
        stop_session(process)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_thousands_of_idle_connections_keep_nobody_out(alone: tuple[str, str]) -> None:
    url, key = alone
    with contextlib.ExitStack() as stack:
        for _ in range(2_100):
            stack.enter_context(connect(url))
        for _ in range(3):
            response = httpx.post(
                f"{url}/v1/recommend",
                json={"unit": "u", "k": 2},
                headers={"Authorization": f"Bearer {key}"},
                timeout=30,
                trust_env=False,
            )
            assert response.status_code == 200
            assert response.json()["source"] == "model"


def test_of_too_many_connections_the_one_that_waited_longest_gives_way(
    start_gateway: StartGateway,
) -> None:
    url = start_gateway(max_connections=8, max_connections_per_peer=3).url
    opened = [connect(url) for _ in range(3)]
    for one in opened[1:]:
        one.sendall(HEALTHY)
        assert one.recv(1000).startswith(OK)
    with connect(url) as fourth:
        fourth.sendall(HEALTHY)
        assert fourth.recv(1000).startswith(OK)
        assert answer(opened[0]) == b""
        for one in opened[1:]:
            one.sendall(HEALTHY)
            assert one.recv(1000).startswith(OK)
    for one in opened:
        one.close()


def test_a_busy_connection_is_not_ended_for_another(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    torchserve.behaviours = [late(1.0)]
    gateway = start_gateway(max_connections_per_peer=1)
    gateway.http.close()
    with connect(gateway.url) as busy:
        busy.sendall(recommend(gateway))
        while not torchserve.asked:
            time.sleep(0.01)
        assert error_of(exchange(gateway.url, b"")) == (503, "unavailable")
        assert busy.recv(65_536).startswith(OK)


def recommend(gateway: Gateway, body: bytes = b'{"unit":"u"}', **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        "POST /v1/recommend HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: {gateway.http.headers['authorization']}\r\n{lines}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


LARGE_HEADS = {
    "a header of 1 MB": b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "a header in one piece": b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "a long path": b"GET /healthz?" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n",
    "empty lines": b"\r\n" * 500_000,
}


@pytest.mark.parametrize("head", LARGE_HEADS)
def test_a_head_that_is_too_large_is_refused(start_gateway: StartGateway, head: str) -> None:
    url = start_gateway().url
    assert error_of(exchange(url, LARGE_HEADS[head])) == (431, "head_too_large")


@pytest.mark.parametrize("around", [b"1;" + b"x" * 100_000, b"0\r\n" + b"x: y\r\n" * 20_000])
def test_around_a_body_in_chunks_no_more_is_read_than_in_a_head(
    start_gateway: StartGateway, around: bytes
) -> None:
    gateway = start_gateway()
    request = recommend(gateway).replace(b"Content-Length: 12", b"Transfer-Encoding: chunked")
    raw = exchange(gateway.url, request.partition(b"{")[0] + around + b"\r\n\r\n")
    assert raw == b""
    assert 'status="499"} 1.0' in gateway.http.get("/metrics").text


def test_a_head_below_the_limit_is_read(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    assert gateway.http.get("/healthz", headers={"X": "a" * 15_000}).status_code == 200


def test_an_endless_head_in_small_pieces_is_read_no_further_than_the_limit(
    start_gateway: StartGateway,
) -> None:
    with connect(start_gateway().url) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 5_000_000:
                sent += opened.send(b"a" * 100)
        # Refused at 16 KiB; then discarded for as long as the answer may take to be read.
        assert sent < 5_000_000 or error_of(answer(opened)) == (431, "head_too_large")


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\nHost", b"HTTP/1.1 408 "),
        (HEALTHY + b"GET /heal", OK),
        (b"\r\n", b""),
        (b"POST /v1/encode HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 401 "),
    ],
)
def test_what_does_not_come_whole_in_time_is_given_up(
    start_gateway: StartGateway, begin: bytes, told: bytes
) -> None:
    with connect(start_gateway(receive_timeout_s=0.3).url) as opened:
        opened.sendall(begin)
        assert answer(opened).startswith(told)


def test_one_byte_at_a_time_gains_no_time(start_gateway: StartGateway) -> None:
    with connect(start_gateway(receive_timeout_s=0.5).url) as opened:
        opened.settimeout(0.05)
        raw = b""
        for byte in b"GET /healthz HTTP/1.1\r\n" + b"X: a\r\n" * 1_000:
            with contextlib.suppress(ConnectionError):
                opened.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                raw = opened.recv(1_000)
                break
        assert error_of(raw) == (408, "request_timeout")


def test_an_answer_that_is_not_read_is_given_up(start_gateway: StartGateway) -> None:
    gateway = start_gateway(receive_timeout_s=0.3, max_requests=1)
    with connect(gateway.url) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        script = b"GET /docs-files/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
        opened.sendall(script * 8)
        # The only request that may be under way: it ends although nobody reads.
        while gateway.recommend().status_code == 503:
            time.sleep(0.02)


def test_too_many_pipelined_requests_end_the_connection(start_gateway: StartGateway) -> None:
    url = start_gateway().url
    few = exchange(url, HEALTHY * 10 + HEALTHY.replace(b"Host", b"Connection: close\r\nHost"))
    assert few.count(OK) == 11
    assert exchange(url, HEALTHY * 5_000).count(OK) < 100


def test_an_upgrade_that_is_offered_is_passed_over(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    offered = recommend(gateway, Upgrade="h2c").replace(
        b"Connection: close", b"Connection: Upgrade"
    )
    with connect(gateway.url) as opened:
        for _ in range(2):
            opened.sendall(offered)
            assert opened.recv(65_536).startswith(OK)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.0\r\nContent-Length: 12", b'{"unit":"u"}'),
        ("HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 12", b'{"unit":"u"}'),
        ("HTTP/1.1\r\nTransfer-Encoding: chunked", b'c\r\n{"unit":"u"}\r\n0\r\nx: y\r\n\r\n'),
    ],
)
def test_http_as_old_proxies_and_curl_send_it(
    start_gateway: StartGateway, head: str, body: bytes
) -> None:
    gateway = start_gateway()
    key = gateway.http.headers["authorization"].replace("Bearer", "bearer")
    request = f"POST /v1/recommend {head}\r\nConnection: close\r\nAuthorization: {key}\r\n\r\n"
    raw = exchange(gateway.url, request.encode() + body)
    assert raw.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(OK)


def test_no_http_is_answered_and_ended(start_gateway: StartGateway) -> None:
    url = start_gateway().url
    assert error_of(exchange(url, b"SSH-2.0-OpenSSH_9.6\r\n\r\n")) == (400, "bad_request")
    smuggled = b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert error_of(exchange(url, smuggled)) == (400, "bad_request")


def test_requests_beyond_those_under_way_are_refused_and_probes_are_not(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gate = threading.Event()

    async def held(asked: Asked, writer: Any) -> None:
        await asyncio.to_thread(gate.wait, 20)
        await ALIVE(asked, writer)

    torchserve.behaviours = [held]
    gateway = start_gateway(max_requests=1)
    first = threading.Thread(target=gateway.recommend)
    first.start()
    while not torchserve.asked:
        time.sleep(0.01)
    refused = gateway.recommend()
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert gateway.http.get("/healthz").status_code == 200
    gate.set()
    first.join()
    assert gateway.recommend().status_code == 200


def test_a_connection_is_kept_longer_than_balancers_keep_it() -> None:
    assert GatewaySettings().keep_alive_s > 60


def test_probes_take_head_as_get(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    for path in ("/healthz", "/readyz"):
        get, head = gateway.http.get(path), gateway.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
    assert gateway.http.head("/v1/recommend").status_code == 405


def test_a_coded_body_is_refused_by_the_codings_name(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    for coding, status in (("gzip", 415), ("br, gzip", 415), ("identity", 200)):
        response = gateway.http.post(
            "/v1/recommend", content=b'{"unit": "u"}', headers={"Content-Encoding": coding}
        )
        assert response.status_code == status
        assert status == 200 or coding in response.json()["message"]


def test_a_client_that_hangs_up_is_no_fault_of_ours_and_its_work_ends(
    start_gateway: StartGateway, torchserve: FakeTorchServe, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()

    async def held(asked: Asked, _writer: Any) -> None:
        # The gateway gives up its own request: it hangs up, too.
        await asked.reader.read()
        ended.set()

    torchserve.behaviours = [held]
    gateway = start_gateway(timeout_ms=10_000, max_timeout_ms=20_000)
    half = recommend(gateway, b'{"unit":"u"}' + b" " * 200)[:-100]
    with connect(gateway.url) as opened:
        opened.sendall(half)
    with connect(gateway.url) as opened:
        opened.sendall(recommend(gateway))
        while not torchserve.asked:
            time.sleep(0.01)
    assert ended.wait(8)
    while 'status="499"} 2.0' not in (page := gateway.http.get("/metrics").text):
        time.sleep(0.02)
    assert 'status="500"' not in page
    assert "internal error" not in caplog.text
    assert gateway.recommend().json()["source"] == "model"
