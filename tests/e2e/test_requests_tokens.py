"""Who may ask what: one token per port, and models only as they were started."""

from collections.abc import Iterator

import httpx
import pytest

from newshelf.pipeline.serve import Served
from newshelf.server.client import Client
from newshelf.server.state import Keys, read_keys
from tests.e2e.products import ENCODER, RECOMMENDER

GOOD = {ENCODER: {"title": "ring"}, RECOMMENDER: {"k": 1}}


@pytest.fixture(scope="module")
def keys(server: Served) -> Keys:
    return read_keys(server.state.key_file)


@pytest.fixture(scope="module")
def nobody() -> Iterator[httpx.Client]:
    """A client without a token."""
    with httpx.Client(trust_env=False, timeout=60) as opened:
        yield opened


def refused(response: httpx.Response) -> bool:
    # TorchServe 0.12 says 400 where 401 would be right.
    return response.status_code == 400 and "Token either incorrect" in response.text


@pytest.mark.parametrize("path", GOOD)
def test_inference_takes_the_inference_token_and_no_other(
    nobody: httpx.Client, server: Served, keys: Keys, path: str
) -> None:
    url = server.state.inference_url + path
    token = keys.inference.token
    for authorization in (
        None,
        "Bearer",
        "Bearer wrong",
        f"Bearer {token}x",
        f"Basic {token}",
        token,
        f"Bearer {keys.management.token}",
        f"Bearer {keys.api.token}",
    ):
        headers = {} if authorization is None else {"Authorization": authorization}
        assert refused(nobody.post(url, json=GOOD[path], headers=headers)), authorization
    assert refused(nobody.post(url, json=GOOD[path], params={"token": token}))
    assert nobody.post(url, json=GOOD[path], headers=keys.inference.header()).status_code == 200


def test_management_takes_the_management_token_and_no_other(
    nobody: httpx.Client, server: Served, keys: Keys
) -> None:
    url = server.state.management_url
    for headers in ({}, keys.inference.header(), keys.api.header()):
        assert refused(nobody.get(f"{url}/models", headers=headers))
    listed = nobody.get(f"{url}/models", headers=keys.management.header()).json()
    assert {model["modelName"] for model in listed["models"]} == {"encoder", "recommender"}


def test_only_the_api_key_renews_tokens(nobody: httpx.Client, server: Served, keys: Keys) -> None:
    for headers in ({}, keys.inference.header(), keys.management.header()):
        answer = nobody.get(
            f"{server.state.management_url}/token", params={"type": "management"}, headers=headers
        )
        assert refused(answer)
    assert read_keys(server.state.key_file) == keys


CHANGES = [
    ("POST", "/models?url={archive}&model_name=another"),
    ("DELETE", "/models/encoder/{version}"),
    ("PUT", "/models/encoder/{version}/set-default"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_models_are_changed_with_the_management_token_alone(
    nobody: httpx.Client, server: Served, keys: Keys, client: Client, method: str, path: str
) -> None:
    before = client.describe("encoder")[0]
    filled = path.format(archive=server.state.models["encoder"], version=before["modelVersion"])
    url = f"{server.state.management_url}{filled}"
    for headers in ({}, keys.inference.header(), keys.api.header()):
        assert refused(nobody.request(method, url, headers=headers))
    # Nor is there anything of it on the inference port.
    url = f"{server.state.inference_url}{filled}"
    answered = nobody.request(method, url, headers=keys.inference.header())
    assert answered.status_code in {404, 405}
    assert client.describe("encoder")[0]["workers"][0]["pid"] == before["workers"][0]["pid"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/evil.mar",
        "file:///tmp/evil.mar",
        "../evil.mar",
        "/tmp/evil.mar",
        "missing.mar",
    ],
)
def test_models_come_from_the_model_store_alone(
    nobody: httpx.Client, server: Served, keys: Keys, url: str
) -> None:
    answered = nobody.post(
        f"{server.state.management_url}/models",
        params={"url": url, "model_name": "evil"},
        headers=keys.management.header(),
    )
    assert answered.status_code == 404
    listed = nobody.get(
        f"{server.state.management_url}/models", headers=keys.management.header()
    ).json()
    assert {model["modelName"] for model in listed["models"]} == {"encoder", "recommender"}
