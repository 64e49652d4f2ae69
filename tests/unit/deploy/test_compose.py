"""deploy/compose.yaml: it is valid, hardened, and names what the code and the images have."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from compose_spec import ComposeSpecification

from newshelf.cli.app import app
from newshelf.config import GatewaySettings, load_settings
from newshelf.gateway.keys import KeyFile, scope_of
from newshelf.pipeline.workspace import Workspace
from newshelf.server.ports import Ports
from newshelf.server.process import HEARTBEAT
from newshelf.server.program import ControllerPlan, GatewayPlan, ShelfPlan
from newshelf.server.torchserve import ports_of, read_properties
from tests.routes import ROUTES

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(:-([^}]*)|:\?[^}]*)\}")
COMPOSE: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda found: found[3] or "x", TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("newshelf-")}
PODS = [name for name, one in SERVICES.items() if one.get("pid") == "service:pod"]
ONCE = [name for name, one in SERVICES.items() if one.get("restart") == "no"]
STATE = Workspace(Path("/state"), Path("/data"), is_sample=False)
PLANS = {
    "newshelf.gateway.main": ("gateway.json", GatewayPlan, STATE.gateway_plan),
    "newshelf.shelf": ("shelf.json", ShelfPlan, STATE.shelf_plan),
    "newshelf.rollout": ("controller.json", ControllerPlan, STATE.controller),
}
"""Programs, with the plan in deploy/compose and where ``prepare`` puts it."""


def plan(name: str) -> Any:
    text = (DEPLOY / "compose" / name).read_bytes()
    (model,) = (model for file, model, _ in PLANS.values() if file == name)
    return model.model_validate_json(text)


def key_paths(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield (*path, key)
            yield from key_paths(one, (*path, key))
    elif isinstance(value, list):
        for one in value:
            yield from key_paths(one, path)


def test_it_follows_the_specification_without_unknown_keys() -> None:
    written = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    read = ComposeSpecification.model_validate(written)
    understood = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert set(key_paths(written)) - set(key_paths(understood)) == set()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_write_to_its_volumes_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices"} & service.keys()
    # Ours, and Grafana, name a user in the image.
    assert name in OURS or name == "grafana" or service["user"] not in {"root", "0", "0:0"}


def test_only_the_proxy_is_meant_for_others() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert published.keys() == {"proxy", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert "${NEWSHELF_ADDRESS:-127.0.0.1}:8443:8443" in TEXT
    # What holds shoppers and models has no way out.
    for name in {*OURS, "postgres"} - set(PODS):
        networks = SERVICES[name].get("networks", [])
        assert networks or SERVICES[name]["network_mode"] == "none"
        assert all(COMPOSE["networks"][network]["internal"] for network in networks)


def test_what_is_named_is_declared() -> None:
    volumes: set[str] = set()
    for name, service in SERVICES.items():
        for one in service.get("volumes", []):
            source = one.partition(":")[0] if isinstance(one, str) else ""
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
                assert one.endswith(":ro")
            elif source:
                volumes.add(source)
        for other, how in dict(_depended(service)).items():
            finishes = how == "service_completed_successfully"
            assert (other in ONCE) == finishes
            assert how != "service_healthy" or not SERVICES[other]["healthcheck"].get("disable")
    assert volumes == COMPOSE["volumes"].keys()
    used = {network for one in SERVICES.values() for network in one.get("networks", [])}
    assert used == COMPOSE["networks"].keys()
    assert all("healthcheck" in one for one in SERVICES.values())


def _depended(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = service.get("depends_on", {})
    for name in found:
        yield name, found[name]["condition"] if isinstance(found, dict) else "service_started"


def test_the_pods_containers_share_its_network_and_processes() -> None:
    assert PODS == ["models", "gateway", "shelf", "controller"]
    for name in PODS:
        assert SERVICES[name]["network_mode"] == "service:pod"
        # A new pod has a new network.
        assert SERVICES[name]["depends_on"]["pod"]["restart"] is True
    ports = ports_of(read_properties(ROOT / "config.properties"))
    gateway = plan("gateway.json")
    assert ports == Ports()
    assert gateway.inference_url == f"http://127.0.0.1:{ports.inference}"
    assert gateway.management_url == f"http://127.0.0.1:{ports.management}"
    assert f":{ports.metrics}/metrics" in SERVICES["models"]["healthcheck"]["test"][-1]
    [strict] = re.findall(r":(\d+)(/\w+)\?strict", SERVICES["gateway"]["healthcheck"]["test"][-1])
    assert strict == (str(gateway.settings.port), "/readyz")
    assert strict[1] in ROUTES
    for name in ("shelf", "controller"):
        beats = SERVICES[name]["environment"][HEARTBEAT]
        assert f"find {beats} " in SERVICES[name]["healthcheck"]["test"][-1]


def test_programs_read_the_plans_that_prepare_writes() -> None:
    started = {}
    for name in PODS:
        match SERVICES[name]["command"]:
            case ["python", "-P", "-m", module, path]:
                started[module] = path
                assert importlib.util.find_spec(module)
            case command:
                assert command[3] == "models"
    assert started == {module: str(place) for module, (_, _, place) in PLANS.items()}
    settings = load_settings(DEPLOY / "compose" / "settings.toml")
    gateway, shelf, controller = (plan(file) for file, _, _ in PLANS.values())
    of_the_proxy = {
        "max_connections_per_peer": GatewaySettings().max_connections,
        "trusted_proxies": gateway.settings.trusted_proxies,
    }
    assert gateway.settings == settings.gateway.model_copy(update=of_the_proxy)
    assert gateway.limits == settings.archive.limits
    assert {one.store_url for one in (gateway, shelf, controller)} == {settings.store.url}
    assert controller.longest_request_s == settings.gateway.max_timeout_ms / 1000
    assert shelf.max_picture_bytes == settings.archive.limits.max_picture_bytes
    paths = {
        gateway.torchserve_keys: STATE.server / "key_file.json",
        gateway.api_keys: STATE.api_keys,
        gateway.popular: STATE.server / "popular.json",
        gateway.words: STATE.shelf / "words",
        shelf.torchserve: STATE.server,
        shelf.folder: STATE.shelf,
        controller.torchserve: STATE.server,
        controller.promoted: STATE.promoted,
    }
    assert list(paths) == list(paths.values())


def test_the_pods_own_commands_understand_their_plan() -> None:
    place = re.search(r"/opt/newshelf/(\S+/host\.py)", TEXT)
    assert place
    spec = importlib.util.spec_from_file_location("host", ROOT / place[1])
    assert spec
    assert spec.loader
    host = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(host)
    known = host.HostPlan.model_validate_json((DEPLOY / "compose/host.json").read_bytes())
    assert known.store_url == plan("gateway.json").store_url
    assert known.model_store == plan("shelf.json").model_store
    assert (known.state, known.plans) == (STATE.root, Path("/etc/newshelf"))
    port = ports_of(read_properties(ROOT / "config.properties")).metrics
    assert known.properties["metrics_address"] == f"http://0.0.0.0:{port}"
    named = {one["command"][3] for one in OURS.values() if "host.py" in str(one["command"])}
    assert named == {"seed", "prepare", "models"}
    assert named <= host.COMMANDS.keys()
    options = SERVICES["train"]["command"]
    given = dict(zip(options[5::2], options[6::2], strict=True))
    assert given["--workspace"] == str(known.workspace)
    assert given["--model-store"] == str(known.model_store)
    assert known.catalog == known.workspace / "sample"
    command: Any = typer.main.get_command(app).commands[options[4]]  # type: ignore[attr-defined]
    assert given.keys() <= {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("group", ["serving", "cuda"])
def test_every_path_of_ours_is_in_the_images(group: str) -> None:
    image = (DEPLOY / "images" / f"{group}.Containerfile").read_text()
    copied = re.findall(r"^COPY (?!--from|\S+\.lock)(.+) \S+$", image, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    plans = [path.read_text() for path in (DEPLOY / "compose").glob("*.json")]
    named = set(re.findall(r"/opt/newshelf/([\w./-]+)", "\n".join([TEXT, image, *plans])))
    assert {"configs/rules.toml", "configs/placements.toml"} <= named
    for path in named:
        assert (ROOT / path).exists()
        assert any(path == one or path.startswith(f"{one}/") for one in sources), path


def test_the_proxy_finds_the_gateway() -> None:
    text = (DEPLOY / "proxy" / "nginx.conf").read_text()
    [(host, port)] = re.findall(r"server (\w+):(\d+)", text)
    assert host in SERVICES["pod"]["networks"]["front"]["aliases"]
    assert int(port) == plan("gateway.json").settings.port
    mounts = {one.split(":")[1] for one in SERVICES["proxy"]["volumes"]}
    assert {"/etc/newshelf/nginx.conf", "/etc/newshelf/trusted", "/etc/newshelf/tls"} == mounts
    assert SERVICES["proxy"]["entrypoint"][2] in mounts
    [listens] = re.findall(r"listen (\d+) ssl", text)
    assert SERVICES["proxy"]["ports"][0].endswith(f":{listens}:{listens}")
    [probed] = re.findall(r"https://127.0.0.1:(\d+/\w+)", str(SERVICES["proxy"]["healthcheck"]))
    assert probed == f"{listens}/healthz"
    assert f"location = /{probed.partition('/')[2]}" in text


def test_the_gateway_believes_the_proxy_alone_who_the_client_is() -> None:
    [subnet] = COMPOSE["networks"]["front"]["ipam"]["config"]
    assert [str(one) for one in plan("gateway.json").settings.trusted_proxies] == [subnet["subnet"]]
    members = {name for name, one in SERVICES.items() if "front" in one.get("networks", [])}
    assert members == {"pod", "proxy"}
    # By no other network that they share, where the proxy would be a stranger.
    shared = set(SERVICES["pod"]["networks"]) & set(SERVICES["proxy"]["networks"])
    assert shared == {"front"}
    text = (DEPLOY / "proxy" / "nginx.conf").read_text()
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in text


def test_prometheus_reads_the_pages_that_there_are() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    jobs = {one["job_name"]: one for one in config["scrape_configs"]}
    ports = ports_of(read_properties(ROOT / "config.properties"))
    assert jobs["gateway"]["static_configs"] == [
        {"targets": [f"gateway:{plan('gateway.json').settings.port}"]}
    ]
    assert jobs["torchserve"]["static_configs"] == [{"targets": [f"gateway:{ports.metrics}"]}]
    assert "gateway" in SERVICES["pod"]["networks"]["inside"]["aliases"]
    assert "inside" in SERVICES["prometheus"]["networks"]
    assert scope_of("/metrics") == "read"
    key = Path(jobs["gateway"]["authorization"]["credentials_file"])
    assert f"keys:{key.parent}:ro" in SERVICES["prometheus"]["volumes"]
    assert str(key) in (DEPLOY / "compose" / "secrets.sh").read_text()


def test_grafana_asks_prometheus() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    (provider,) = yaml.safe_load((folder / "dashboards/newshelf.yaml").read_text())["providers"]
    mounts = [one.split(":")[1] for one in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
    assert "/etc/grafana/provisioning" in mounts


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the image has it")
def test_secrets_are_made_once(tmp_path: Path) -> None:
    text = (DEPLOY / "compose" / "secrets.sh").read_text()
    for name in ("keys", "tls", "state"):
        (tmp_path / name).mkdir()
        assert f"/{name}" in text
        text = re.sub(rf"(?<=[ >])/{name}\b", str(tmp_path / name), text)
    text = text.replace("python -P", f"{sys.executable} -P")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin"}

    def run() -> dict[Path, bytes]:
        subprocess.run(["sh", "-euc", text], env=environment, check=True, cwd=tmp_path)
        made = [*(tmp_path / "keys").iterdir(), *(tmp_path / "tls").iterdir()]
        assert all(path.stat().st_mode & 0o077 == 0 for path in made)
        return {path.relative_to(tmp_path): path.read_bytes() for path in made}

    made = run()
    assert {str(path) for path in made} == {"keys/prometheus", "tls/tls.crt", "tls/tls.key"}
    (key,) = KeyFile(tmp_path / "state" / "gateway" / "keys.json").read()
    assert (key.name, key.scopes) == ("prometheus", ("read",))
    assert re.fullmatch(rb"\S{30,}\n", made[Path("keys/prometheus")])
    assert run() == made
    # The file is lost: a new key takes its place.
    (tmp_path / "keys" / "prometheus").unlink()
    assert run()[Path("keys/prometheus")] != made[Path("keys/prometheus")]


def test_every_variable_has_a_value() -> None:
    written = set(
        re.findall(r"^ +printf '(\w+)=%s\\n(\w+)=%s", (DEPLOY / "up").read_text(), re.M)[0]
    )
    needed = {found[1] for found in VARIABLE.finditer(TEXT) if found[3] is None}
    assert needed == written
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "deploy/.env" in ignored


def test_plans_are_no_place_for_a_password() -> None:
    for path in (DEPLOY / "compose").iterdir():
        assert not re.search(r"//[^/@\s]*:[^/@\s]*@", path.read_text())
    assert json.loads((DEPLOY / "compose/host.json").read_text())["store_url"]


def test_the_override_of_the_page_trains_on_another_catalogue() -> None:
    page = (ROOT / "docs" / "containers.md").read_text()
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    override = yaml.safe_load(block)
    ComposeSpecification.model_validate(override)
    services = override["services"]
    assert services.keys() <= SERVICES.keys()
    usual = SERVICES["train"]["command"]
    assert services["train"]["command"] == [*usual[:5], "--catalog", "/data/catalog", *usual[5:]]
    mounted = {one["volumes"][0].split(":")[1] for one in services.values()}
    assert mounted == {"/data/catalog"}
