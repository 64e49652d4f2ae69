"""The front door in front of a real gateway and its models."""

from collections.abc import Iterator

import httpx
import pytest

from benchmarks.overload.proxy import Proxy, running_proxy
from newshelf.catalog.catalog import Catalog
from newshelf.config import Settings
from newshelf.gateway.schemas import RecommendOut
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import Workspace
from newshelf.store.store import EventStore


@pytest.fixture(scope="module")
def proxy(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    assert server.state.gateway is not None
    address = server.state.gateway.url.removeprefix("http://")
    with running_proxy(tmp_path_factory.mktemp("proxy"), address) as running:
        yield running


@pytest.fixture(scope="module")
def https(proxy: Proxy, workspace: Workspace) -> Iterator[httpx.Client]:
    key = (workspace.gateway / "local.key").read_text().strip()
    with httpx.Client(
        base_url=proxy.url,
        headers={"Authorization": f"Bearer {key}"},
        verify=proxy.trust,
        timeout=60,
        trust_env=False,
    ) as opened:
        yield opened


def test_a_recommendation_is_answered_and_recorded_under_one_id(
    https: httpx.Client, proxy: Proxy, workspace: Workspace, catalog: Catalog
) -> None:
    history = [str(name) for name in catalog.items["id"][:3]]
    response = https.post("/v1/recommend", json={"unit": "by-proxy", "history": history, "k": 5})
    answer = RecommendOut.model_validate(response.json())
    assert answer.source == "model"
    assert len(answer.items) == 5
    assert response.headers["x-request-id"] == answer.request_id
    with EventStore.open(workspace.store_url(Settings())) as store:
        stored = [one for one in store.exposures() if one.request_id == answer.request_id]
    assert [one.unit for one in stored] == ["by-proxy"]
    assert proxy.logged("request_id", answer.request_id)["status"] == 200


def test_a_head_that_passes_the_proxy_is_one_that_the_gateway_reads(https: httpx.Client) -> None:
    headers = {"x-first": "x" * 7000, "x-second": "x" * 7000}
    assert https.post("/v1/recommend", json={"unit": "u"}, headers=headers).status_code == 200


def test_the_gateways_own_refusals_come_through(https: httpx.Client) -> None:
    unknown = https.post("/v1/recommend", json={"unit": "u"}, headers={"Authorization": "Bearer x"})
    assert (unknown.status_code, unknown.json()["code"]) == (401, "unauthorized")
    invalid = https.post("/v1/recommend", json={"unit": "u", "k": 101})
    assert (invalid.status_code, invalid.json()["field"]) == (422, "k")


def test_what_is_not_public_stays_inside(https: httpx.Client) -> None:
    for path in ("/metrics", "/v1/items", "/v1/units/by-proxy", "/v1/rollouts", "/docs"):
        assert https.get(path).status_code == 404
    assert https.get("/healthz").status_code == 200
