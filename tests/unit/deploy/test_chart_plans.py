"""The Helm chart: commands, plans, settings and secrets fit the code."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import pytest
import typer.main

from newshelf.cli.app import app
from newshelf.config import Settings, load_settings
from newshelf.pipeline import serve
from newshelf.rollout.plan import load_plan
from newshelf.server.program import ControllerPlan, GatewayPlan, ShelfPlan
from newshelf.server.state import ServerState
from newshelf.server.torchserve import ports_of
from newshelf.serving import index
from tests.unit.deploy.conftest import CHART, INSTALLATIONS, Manifest, Render, Values
from tests.unit.deploy.manifests import (
    PROPERTIES,
    ROOT,
    container,
    containers,
    files,
    of_kind,
    server,
    templates,
)

PLANS = {
    "newshelf.gateway.main": ("gateway.json", GatewayPlan),
    "newshelf.shelf": ("shelf.json", ShelfPlan),
    "newshelf.rollout": ("controller.json", ControllerPlan),
}
"""Programs, with the plan that each reads."""


def check_command(words: list[str], manifests: list[Manifest], host: ModuleType) -> None:
    """Check a command as Python and the command line read it."""
    python, isolated, *rest = words
    assert (python, isolated) == ("python", "-P")
    if rest[0] != "-m":
        script, command, plan = rest
        # The image's, which fits its code.
        assert ROOT / Path(script).relative_to("/opt/newshelf") == CHART / "files" / "host.py"
        assert command in host.COMMANDS
        assert plan == "/etc/newshelf/host.json"
        return
    module, *arguments = rest[1:]
    if module == "newshelf":
        verb, *options = arguments
        verbs: Any = typer.main.get_command(app)
        parsed = verbs.commands[verb].make_context(verb, [*options], resilient_parsing=False)
        assert str(parsed.params["settings"]) == "/etc/newshelf/settings.toml"
        assert str(parsed.params["workspace"]) == "/data/workspace"
        return
    importlib.import_module(
        f"{module}.__main__" if module in {"newshelf.shelf", "newshelf.rollout"} else module
    )
    name, model = PLANS[module]
    own = host.HostPlan.model_validate_json(files(manifests)["host.json"]).own
    written = {
        "gateway.json": own.gateway_plan,
        "controller.json": own.controller,
        "shelf.json": own.shelf_plan,
    }
    assert arguments == [str(written[name])]
    model.model_validate_json(files(manifests)[name])


def test_every_command_is_one_that_the_code_has(
    manifests: list[Manifest], host: ModuleType
) -> None:
    checked = [
        one["command"]
        for pod, _ in templates(manifests)
        for one in containers(pod)
        if one["name"] != "fetch"
    ]
    for words in checked:
        check_command(words, manifests, host)
    assert len(checked) >= 3


def test_the_plans_are_those_of_a_server_with_these_settings(
    manifests: list[Manifest],
    values: Values,
    host: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    written = files(manifests)
    own = host.HostPlan.model_validate_json(written["host.json"]).own
    given = values.get("settings", {})
    placed = {"host": "0.0.0.0", "port": 8000}  # noqa: S104 - the pod's
    settings = Settings.model_validate(
        given
        | {"gateway": placed | given.get("gateway", {})}
        | {"store": given.get("store", {}) | {"url": values.get("database", {}).get("url", "")}}
    )
    state = ServerState(
        directory=own.server,
        ports=ports_of(PROPERTIES),
        temp=tmp_path,
        models={},
        catalog=str(own.catalog),
    )
    for writes in ("write_popular", "first_key"):
        monkeypatch.setattr(serve, writes, lambda *_: None)
    monkeypatch.setattr(index, "read_columns", lambda *_: None)
    expected = serve.plan_gateway(state, own, settings)
    placements = "/opt/newshelf/configs/placements.toml"
    if "placements" in values:
        placements = "/etc/newshelf/placements.toml"
    rules = "/etc/newshelf/rules.toml" if "rules" in values else "/opt/newshelf/configs/rules.toml"
    # The reports of the training are on the shared volume.
    data = Path("/data/workspace")
    moved = {
        "placements": Path(placements),
        "rules": Path(rules),
        "drift": data / "drift" / "report.json",
        "retrain": data / "retrain",
    }
    plan = GatewayPlan.model_validate_json(written["gateway.json"])
    assert plan.model_dump() == expected.model_copy(update=moved).model_dump()
    if "controller.json" in written:
        controller = ControllerPlan.model_validate_json(written["controller.json"])
        demo: Any = type("Demo", (), {"history": []})
        wanted = serve.plan_controller(state, own, settings, demo)
        assert controller == wanted.model_copy(update={"question": {"k": 5}})
    if "shelf.json" in written:
        shelf = ShelfPlan.model_validate_json(written["shelf.json"])
        wanted_shelf = serve.plan_shelf(state, own, settings)
        assert shelf == wanted_shelf.model_copy(update={"rules": Path(rules)})
    assert ("shelf.json" in written) == serve.has_shelf(settings)


def paths(value: object) -> Iterator[Path]:
    """Yield every absolute path in a plan."""
    if isinstance(value, dict):
        for one in value.values():
            yield from paths(one)
    elif isinstance(value, str) and value.startswith("/"):
        yield Path(value)


def test_every_path_of_a_plan_is_mounted_where_it_is_used(manifests: list[Manifest]) -> None:
    written = files(manifests)
    readers = {"gateway": "gateway", "shelf": "shelf", "controller": "controller", "host": "models"}
    for plan, name in readers.items():
        if f"{plan}.json" not in written:
            continue
        mounts = [Path(one["mountPath"]) for one in container(manifests, name)["volumeMounts"]]
        if plan == "host":
            # `prepare` alone reads the keys.
            mounts.append(Path("/etc/newshelf-keys"))
        for path in paths(json.loads(written[f"{plan}.json"])):
            in_image = path.is_relative_to("/opt/newshelf")
            assert in_image or any(path.is_relative_to(mount) for mount in mounts), path
            if path.is_relative_to("/etc/newshelf") and path.suffix:
                assert path.name in written


@pytest.mark.parametrize("name", ["placements", "rules"])
def test_files_of_the_image_are_in_the_repository(name: str) -> None:
    assert (ROOT / "configs" / f"{name}.toml").is_file()


def test_the_training_reads_the_settings_of_the_values(render: Render, tmp_path: Path) -> None:
    values = INSTALLATIONS["training"]
    written = files(render(values))
    path = tmp_path / "settings.toml"
    path.write_text(written["settings.toml"])
    url, plan = values["database"]["url"], "/etc/newshelf/rollout.yaml"
    given = values["settings"]
    assert load_settings(path) == Settings.model_validate(
        given | {"store": given["store"] | {"url": url}, "retrain": {"plan": plan}}
    )
    assert written["rollout.yaml"] == values["retrain"]["plan"]


def test_the_plan_of_the_repository_is_in_its_image() -> None:
    assert load_plan(ROOT / "configs" / "rollout.yaml").success


def test_no_secret_is_in_a_manifest_that_is_none(render: Render) -> None:
    values = INSTALLATIONS["training"]
    manifests = render(values)
    plain = json.dumps([one for one in manifests if one["kind"] != "Secret"])
    for secret in (values["database"]["password"], KEYS_OF["cursor.key"], KEYS_OF["pseudonym.key"]):
        assert secret not in plain
        assert secret in json.dumps(of_kind(manifests, "Secret"))


KEYS_OF: dict[str, str] = INSTALLATIONS["training"]["keys"]["files"]


def test_workers_do_not_see_the_password_of_the_database(render: Render) -> None:
    gateway = container(render(INSTALLATIONS["training"]), "gateway")
    secret = [one["name"] for one in gateway["env"] if "valueFrom" in one]
    # libpq's variable, and TorchServe's pattern of what it keeps from its workers.
    assert secret == ["PGPASSWORD"]
    assert re.fullmatch(PROPERTIES["blacklist_env_vars"], "PGPASSWORD")


def test_a_changed_key_or_setting_restarts_the_pods(render: Render) -> None:
    def checksums(values: Values) -> dict[str, str]:
        found: dict[str, str] = server(render(values))["spec"]["template"]["metadata"][
            "annotations"
        ]
        return found

    before = checksums({"keys": {"files": KEYS_OF}})
    assert checksums({"keys": {"files": KEYS_OF}}) == before
    changed = checksums({"keys": {"files": KEYS_OF | {"cursor.key": "ef" * 32}}})
    assert changed["checksum/secrets"] != before["checksum/secrets"]
    changed = checksums({"keys": {"files": KEYS_OF}, "settings": {"gateway": {"processes": 2}}})
    assert changed["checksum/files"] != before["checksum/files"]


@pytest.mark.parametrize(("proxies", "warns"), [([], True), (["10.42.7.0/24"], False)])
def test_who_trusts_no_proxy_is_told_that_browsers_share_a_rate(
    chart: helm_python.Chart, render: Render, proxies: list[str], warns: bool
) -> None:
    values = {"settings": {"gateway": {"trusted_proxies": proxies}}}
    gateway = GatewayPlan.model_validate_json(files(render(values))["gateway.json"])
    assert [str(one) for one in gateway.settings.trusted_proxies] == proxies
    texts = chart.render(values, name="shop", namespace="prod")
    [notes] = [text for name, text in texts.items() if name.endswith("NOTES.txt")]
    assert ("settings.gateway.trusted_proxies" in notes) is warns
