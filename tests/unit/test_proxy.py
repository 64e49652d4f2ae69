"""deploy/proxy/nginx.conf in a real nginx, in front of a gateway that tells what it was sent."""

import concurrent.futures
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gevent.ssl
import httpx
import pytest

from benchmarks.overload.proxy import PROXY, Proxy, running_proxy
from loadtest.engine import Sender, fresh_numbers
from loadtest.http_client import HttpConnection, with_head
from loadtest.requests import as_json
from newshelf.config import GatewaySettings
from newshelf.gateway.keys import scope_of
from tests.routes import ROUTES

TEXT = (PROXY / "nginx.conf").read_text()
MODELS = ("/v2/models/encoder", "/v2/models/recommender")
PUBLIC = (
    *(f"/v1/{name}" for name in ("recommend", "similar", "search", "encode", "feedback")),
    *("/v2", *MODELS, *(f"{model}/infer" for model in MODELS)),
)


class Gateway(ThreadingHTTPServer):
    """Answers with what it was sent."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.arrived = threading.Semaphore(0)
        self.free = threading.Event()
        self.free.set()
        self.numbers = itertools.count()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.arrived.release()
        self.server.free.wait()
        table = {"path": self.path, "headers": dict(self.headers), "bytes": len(body)}
        answer = json.dumps(table).encode()
        self.send_response(404 if "unknown" in self.path else 200)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-request-id", f"gateway-{next(self.server.numbers)}")
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        yield gateway
        gateway.shutdown()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(tmp_path_factory.mktemp("proxy"), gateway.address) as running:
        yield running


@pytest.fixture(scope="module")
def http(proxy: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, verify=proxy.trust, trust_env=False) as opened:
        yield opened


@pytest.mark.parametrize("path", PUBLIC)
def test_public_routes_reach_the_gateway(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"unit": "u"}, headers={"authorization": "Bearer key"})
    assert answer.status_code == 200
    assert answer.json()["path"] == path
    assert answer.json()["headers"]["authorization"] == "Bearer key"
    assert answer.headers["strict-transport-security"]


def test_every_other_route_is_unknown(http: httpx.Client) -> None:
    others = {re.sub(r"\{.*\}", "x", route) for route in ROUTES} - {*PUBLIC, "/healthz"}
    assert {"/metrics", "/v1/items", "/v1/units/x", "/v2/health/live"} <= others
    others |= {
        "/v1/recommend/",
        "/v1/recommend/../../metrics",
        "//metrics",
        "/v1/encode%2F..%2Fx",
        "/.error/unavailable",
        "/console",
        "/console/sign-in",
        "/page-files/console.css",
    }
    for path in sorted(others):
        for method in ("GET", "POST"):
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_public_routes_need_no_more_than_what_a_front_end_has() -> None:
    assert {scope_of(path) for path in PUBLIC} == {"read", "feedback"}


def test_the_gateways_health_is_the_proxys(http: httpx.Client) -> None:
    assert http.get("/healthz").json()["path"] == "/healthz"


def test_the_client_cannot_name_its_own_address_or_request(
    http: httpx.Client, proxy: Proxy
) -> None:
    forged = {"x-forwarded-for": "9.9.9.9", "x-request-id": "mine", "traceparent": "00-1-2-01"}
    answer = http.post("/v1/recommend", json={}, headers=forged)
    sent = answer.json()["headers"]
    assert sent["X-Forwarded-For"] == "127.0.0.1"
    assert sent["X-Forwarded-Proto"] == "https"
    assert "mine" not in sent.values()
    assert sent["traceparent"] == "00-1-2-01"
    # One id, the gateway's, and the log has it too.
    assert re.fullmatch(r"gateway-\d+", answer.headers["x-request-id"])
    logged = proxy.logged("request_id", answer.headers["x-request-id"])
    assert (logged["client"], logged["status"]) == ("127.0.0.1", 200)
    refused = http.get("/metrics")
    assert re.fullmatch(r"[0-9a-f]{32}", refused.headers["x-request-id"])


def test_a_load_comes_over_tls_and_from_an_address_of_its_own(proxy: Proxy) -> None:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(proxy.folder / "tls.crt")
    sender = Sender(
        proxy.url,
        lambda _: None,
        fresh_numbers(0, 1),
        timeout_s=60,
        connect=lambda: HttpConnection(("127.0.0.1", proxy.port), source="127.0.0.7", tls=context),
    )
    request = with_head(as_json("recommend", "/v1/recommend", {"unit": "u"}), proxy.url, {})
    outcomes = [sender.send(request) for _ in range(2)]
    assert [one.status for one in outcomes] == [200, 200]
    assert proxy.logged("client", "127.0.0.7")["status"] == 200


def test_the_log_has_no_query_body_or_key(http: httpx.Client, proxy: Proxy) -> None:
    url = "/v1/search?unit=someone"
    secret = {"authorization": "Bearer secret"}
    answer = http.post(url, json={"query": "ring"}, headers=secret)
    proxy.logged("request_id", answer.headers["x-request-id"])
    text = (proxy.folder / "access.log").read_text()
    assert "/v1/search" in text
    assert not re.search(r"someone|secret|ring\"", text)


def test_a_trusted_balancer_names_the_client(gateway: Gateway, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    [example] = re.findall(r"```nginx\n(.*?)```", (PROXY / "trusted/README.md").read_text(), re.S)
    (trusted / "balancer.conf").write_text(example.replace("10.0.0.0/8", "127.0.0.1"))
    with running_proxy(tmp_path, gateway.address) as proxy:
        headers = {"x-forwarded-for": "9.9.9.9, 203.0.113.7"}
        url = f"{proxy.url}/v1/recommend"
        answer = httpx.post(url, json={}, headers=headers, verify=proxy.trust, trust_env=False)
        assert answer.json()["headers"]["X-Forwarded-For"] == "203.0.113.7"


def test_limits_are_those_of_the_gateway(http: httpx.Client) -> None:
    settings = GatewaySettings()
    path = "/v1/encode"
    assert http.post(path, content=b"x" * settings.max_body_bytes).json()["bytes"] == (
        settings.max_body_bytes
    )
    refused = http.post(path, content=b"x" * (settings.max_body_bytes + 1))
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert str(settings.max_body_bytes) in refused.json()["message"]
    numbers = dict(re.findall(r"^ +(\w+_timeout) (\d+)s;", TEXT, re.MULTILINE))
    assert int(numbers["proxy_read_timeout"]) < settings.max_timeout_ms / 1000
    [read] = re.findall(r"location ~.*?proxy_read_timeout (\d+)s", TEXT, re.DOTALL)
    assert int(read) > settings.max_timeout_ms / 1000
    [kept] = re.findall(r"keepalive 64;.*?keepalive_timeout (\d+)s", TEXT, re.DOTALL)
    assert int(kept) < settings.keep_alive_s


def test_heads_are_limited_below_what_the_gateway_reads(http: httpx.Client) -> None:
    fits = http.post("/v1/encode", headers={"x-a": "x" * 7000, "x-b": "x" * 7000})
    head = "".join(f"{name}: {value}\r\n" for name, value in fits.json()["headers"].items())
    assert len(head) < GatewaySettings().max_head_bytes - 500
    for large in (
        {"x-a": "x" * 8000},
        {"x-a": "x" * 7000, "x-b": "x" * 7000, "x-c": "x" * 7000},
    ):
        refused = http.post("/v1/encode", headers=large)
        assert (refused.status_code, refused.json()["code"]) == (431, "head_too_large")
    refused = http.get("/" + "x" * 8000)
    assert (refused.status_code, refused.json()["code"]) == (431, "head_too_large")


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_tls_is_new_enough_and_offers_http_2(proxy: Proxy, alpn: str) -> None:
    with proxy.connect(alpn) as connection:
        assert connection.selected_alpn_protocol() == alpn
        assert connection.version() == "TLSv1.3"


def test_plain_http_is_refused(proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.port}/v1/recommend"
    refused = httpx.post(url, json={}, trust_env=False)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")


def test_a_head_that_does_not_end_is_given_up(gateway: Gateway, tmp_path: Path) -> None:
    changes = {"client_header_timeout 10s": "client_header_timeout 1s"}
    with running_proxy(tmp_path, gateway.address, **changes) as proxy, proxy.connect() as slow:
        slow.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\n")
        try:
            left = slow.recv(1)
        except ConnectionResetError:
            left = b""
        # Neither an answer nor a connection that stays.
        assert left == b""


def test_one_address_is_limited_in_rate(gateway: Gateway, tmp_path: Path) -> None:
    changes = {"rate=200r/s": "rate=1r/m", "burst=400": "burst=3"}
    with running_proxy(tmp_path, gateway.address, **changes) as proxy:
        url = f"{proxy.url}/v1/recommend"
        with httpx.Client(verify=proxy.trust, trust_env=False) as http:
            answers = [http.post(url, json={}) for _ in range(6)]
        assert [one.status_code for one in answers] == [200] * 4 + [429] * 2
        assert answers[-1].json()["code"] == "rate_limited"
        assert answers[-1].headers["retry-after"] == "1"
        assert re.fullmatch(r"[0-9a-f]{32}", answers[-1].headers["x-request-id"])
        request_id = answers[-1].headers["x-request-id"]
        assert proxy.logged("request_id", request_id)["limited"] == "REJECTED"


def test_one_address_is_limited_in_requests_at_once(tmp_path: Path) -> None:
    with (
        running_gateway() as gateway,
        running_proxy(
            tmp_path, gateway.address, **{"limit_conn connections 256": "limit_conn connections 2"}
        ) as proxy,
        concurrent.futures.ThreadPoolExecutor() as threads,
        httpx.Client(verify=proxy.trust, trust_env=False, timeout=60) as http,
    ):
        gateway.free.clear()
        url = f"{proxy.url}/v1/recommend"
        held = [threads.submit(http.post, url, json={}) for _ in range(2)]
        for _ in held:
            gateway.arrived.acquire()
        refused = http.post(url, json={})
        gateway.free.set()
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert [one.result().status_code for one in held] == [200, 200]


def test_without_a_gateway_it_says_so(tmp_path: Path) -> None:
    with running_gateway() as gateway:
        address = gateway.address
    with running_proxy(tmp_path, address) as proxy:
        url = f"{proxy.url}/v1/recommend"
        answer = httpx.post(url, json={}, verify=proxy.trust, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"
