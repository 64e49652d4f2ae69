"""Routes of people who run the shop: what they tell and do, for keys with the scope admin only."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from newshelf.server.ports import Ports
from newshelf.server.process import ProcessRef, started_s
from newshelf.server.state import KEY_FILE, Restart, ServerState
from tests.gateways import StartGateway
from tests.routes import ROUTES
from tests.unit.gateway.browsing import LOOK, begin, rollout_of
from tests.unit.gateway.fake_torchserve import FakeTorchServe
from tests.unit.gateway.units import do

ADMIN = sorted(route for route in ROUTES if route.startswith("/v1/admin/"))


@pytest.mark.parametrize("route", ADMIN)
def test_only_a_key_with_the_scope_admin_gets_an_answer(
    start_gateway: StartGateway, route: str
) -> None:
    gateway = start_gateway()
    secret = gateway.keys.add(
        "others", now=datetime.now(UTC), expires=None, rate_per_s=100,
        scopes=("read", "feedback", "items"),
    )  # fmt: skip
    while [one["name"] for one in gateway.http.get("/v1/admin/keys").json()] != ["tests", "others"]:
        pass
    path = gateway.url + route.replace("{name:path}", "spring")
    for method in ("GET", "POST"):
        assert httpx.request(method, path, trust_env=False).status_code == 401
        header = {"Authorization": f"Bearer {secret}"}
        refused = httpx.request(method, path, headers=header, trust_env=False)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_a_command_is_recorded_with_the_name_of_its_key(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    begin(gateway)
    gateway.store.rollouts.add_snapshot("spring", json.dumps(LOOK))
    path = "/v1/admin/rollouts/spring"
    shown = gateway.http.get(path).json()
    assert (shown["phase"], shown["commands"]) == ("ramp", ["pause", "promote", "abort"])
    assert (shown["control"], shown["challenger"], shown["share"]) == ("1.0", "1.1", 0.1)
    assert shown["looks"][0]["analysis"]["metrics"][0]["high"] == "Infinity"
    paused = gateway.http.post(path, json={"command": "pause"}).json()
    assert (paused["phase"], paused["resumes_to"]) == ("paused", "ramp")
    assert [one["reason"] for one in paused["changes"]] == ["planned", "paused by the key tests"]
    again = gateway.http.post(path, json={"command": "pause"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert rollout_of(gateway).reason == "paused by the key tests"
    for body, code, field in (({"command": "start"}, 422, "command"), ({}, 422, "command")):
        refused = gateway.http.post(path, json=body)
        assert (refused.status_code, refused.json()["field"]) == (code, field)
    for name in ("autumn", "../status", "a%2Fb"):
        unknown = gateway.http.post(f"/v1/admin/rollouts/{name}", json={"command": "pause"})
        assert unknown.status_code in {404, 405}
    (listed,) = gateway.http.get("/v1/admin/rollouts").json()
    assert (listed["rollout"], listed["phase"]) == ("spring", "paused")
    page = gateway.http.get("/metrics").text
    assert 'route="/v1/admin/rollouts/{name}"' in page


def test_a_rollout_of_an_earlier_version_is_listed(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    gateway.store.rollouts.create("old", "{}", '{"rollout": "old", "phase": "promoted"}', None)
    (listed,) = gateway.http.get("/v1/admin/rollouts").json()
    assert (listed["rollout"], listed["phase"], listed["control"]) == ("old", "promoted", None)


def test_the_status_names_processes_that_run_and_those_that_do_not(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    here = ProcessRef(os.getpid(), started_s(os.getpid()), "")
    ServerState(
        tmp_path, Ports(), tmp_path, {"recommender": "recommender-1.0.mar"}, "shop",
        processes={"gateway-1": here, "shelf": ProcessRef(0, 0.0, "")},
        restarts=(Restart("2026-05-01T10:00:00+00:00", "shelf", "was killed"),),
    ).save()  # fmt: skip
    gateway = start_gateway(files={"torchserve_keys": tmp_path / KEY_FILE})
    gateway.store.items.published("host", "1.0", 0)
    status = gateway.http.get("/v1/admin/status").json()
    runs = {one["name"]: one["running"] for one in status["processes"]}
    assert runs == {"gateway-1": True, "shelf": False}
    assert status["processes"][1]["restarts"] == ["2026-05-01T10:00:00+00:00: was killed"]
    assert status["archives"] == {"recommender": "recommender-1.0.mar"}
    assert (status["store"], status["hosts"][0]["host"]) == (None, "host")


def test_keys_are_listed_without_hashes_and_with_their_last_use(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    answer = gateway.http.get("/v1/admin/keys")
    (key,) = answer.json()
    assert key["name"] == "tests"
    used = datetime.fromisoformat(key["last_used"])
    assert abs((datetime.now(UTC) - used).total_seconds()) < 60
    assert gateway.keys.read()[0].sha256 not in answer.text


def test_a_preview_is_the_models_answer_and_leaves_no_trace(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway()
    do(gateway, "ann", "item-007", event_type="purchase")
    seen = gateway.http.post("/v1/admin/preview", json={"unit": "ann", "k": 3}).json()
    assert len(seen["items"]) == 3
    assert torchserve.last_body()["history"] == ["item-007"]
    again = gateway.http.post("/v1/admin/preview", json={"unit": "ann", "kind": "buy_again"})
    assert torchserve.last_body()["candidates"] == ["item-007"]
    assert again.status_code == 200
    assert gateway.exposures() == []
    refused = gateway.http.post("/v1/admin/preview", json={"k": 3})
    assert (refused.status_code, refused.json()["field"]) == (422, "unit")


def test_rules_are_shown_as_their_file_has_them(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    gateway = start_gateway(files={"rules": path})
    assert gateway.http.get("/v1/admin/rules").json()["rules"] == []
    path.write_text('[[rule]]\nname = "summer"\nboost = 2.0\n')
    shown = gateway.http.get("/v1/admin/rules").json()
    assert shown["rules"] == [{"name": "summer", "boost": 2.0}]
    path.write_text("[[rule")
    refused = gateway.http.get("/v1/admin/rules")
    assert refused.status_code >= 500
    assert "rules.toml cannot be read" in refused.json()["message"]


def test_retrainings_are_listed_the_last_first(start_gateway: StartGateway, tmp_path: Path) -> None:
    folder, drift = tmp_path / "retrain", tmp_path / "drift.json"
    gateway = start_gateway(files={"retrain": folder, "drift": drift})
    assert gateway.http.get("/v1/admin/retrainings").json() == {"retrainings": [], "drift": None}
    folder.mkdir()
    for day in ("2026-01-01", "2026-01-08"):
        (folder / f"{day}.json").write_text(json.dumps({"at": day}))
    drift.write_text('{"days": 7}')
    shown = gateway.http.get("/v1/admin/retrainings").json()
    assert [one["at"] for one in shown["retrainings"]] == ["2026-01-08", "2026-01-01"]
    assert shown["drift"] == {"days": 7}
