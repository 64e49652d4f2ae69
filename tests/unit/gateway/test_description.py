"""What ``/openapi.json`` promises, the routes keep."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from tests.gateways import StartGateway
from tests.routes import ROUTES

DOCS = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text(encoding="utf-8")


@pytest.fixture
def described(start_gateway: StartGateway) -> dict[str, Any]:
    found: dict[str, Any] = start_gateway().http.get("/openapi.json").json()
    return found


def test_every_route_is_described_with_what_it_takes_and_gives(described: dict[str, Any]) -> None:
    assert set(described["paths"]) == set(ROUTES) - {"/docs", "/openapi.json"}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], path
            if method == "post":
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert schema, path
                assert {"401", "413", "429", "503", "504"} <= set(operation["responses"]), path


def test_generators_of_clients_can_read_it(described: dict[str, Any]) -> None:
    validate(described)
    names = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert {"recommend", "feedback", "put_items", "list_items", "show_unit"} <= set(names)
    assert len(names) == len(set(names))
    (page,) = [one for one in described["paths"]["/v1/items"].values() if "parameters" in one]
    assert [one["name"] for one in page["parameters"]] == ["after", "limit"]


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert named
    assert named <= set(described["components"]["schemas"])


def test_a_request_tells_its_fields(described: dict[str, Any]) -> None:
    recommend = described["components"]["schemas"]["RecommendIn"]
    assert {"unit", "history", "candidates", "k", "filters", "exclude"} <= set(
        recommend["properties"]
    )
    assert recommend["required"] == ["unit"]
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_the_page_and_what_it_loads_are_allowed_by_its_policy(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    page = gateway.http.get("/docs")
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(sources) == 3
    for source in sources:
        # No key is sent: a browser has none when it opens the page.
        found = httpx.get(gateway.url + source, trust_env=False)
        assert (found.status_code, len(found.content) > 1000) == (200, True)
    assert "https:" not in page.headers["content-security-policy"]
    # The folder above holds Python files.
    above = httpx.get(gateway.url + "/docs-files/%2e%2e/core.py", trust_env=False)
    assert (above.url.raw_path, above.status_code) == (b"/docs-files/%2e%2e/core.py", 404)


def test_the_manual_names_every_route() -> None:
    for route in ROUTES:
        assert f"`{route}`" in DOCS or f" {route}`" in DOCS, route
