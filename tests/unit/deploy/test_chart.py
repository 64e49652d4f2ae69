"""The Helm chart: its manifests are valid, hardened and complete, and fit the code."""

import importlib
import json
import os
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import typer.main
import yaml

from newshelf.cli.app import app
from newshelf.config import Settings, load_settings
from newshelf.pipeline import serve
from newshelf.pipeline.workspace import Workspace
from newshelf.rollout.plan import load_plan
from newshelf.server.controller import ControllerPlan
from newshelf.server.gateway import GatewayPlan
from newshelf.server.process import HEARTBEAT
from newshelf.server.properties import ports_of, read_properties
from newshelf.server.shelf import ShelfPlan
from newshelf.server.state import ServerState
from newshelf.serving import index
from tests.routes import ROUTES
from tests.unit.deploy.conftest import CHART, INSTALLATIONS, Manifest, Render, Values

ROOT = Path(__file__).resolve().parents[3]
EXTENSIONS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
"""Not Kubernetes' own, so that there is no schema."""
PLANS = {
    "newshelf.gateway.main": ("gateway.json", GatewayPlan),
    "newshelf.shelf": ("shelf.json", ShelfPlan),
    "newshelf.rollout": ("controller.json", ControllerPlan),
}
"""Programs, with the plan that each reads."""
PROPERTIES = read_properties(ROOT / "config.properties")


def templates(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield the templates of pods, each with the manifest that it is part of."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            yield spec["jobTemplate"]["spec"]["template"], manifest
        elif "template" in spec:
            yield spec["template"], manifest


def containers(template: Manifest) -> list[Manifest]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def server(manifests: list[Manifest]) -> Manifest:
    (found,) = (one for one in manifests if one["kind"] == "StatefulSet")
    return found


def container(manifests: list[Manifest], name: str) -> Manifest:
    found = [
        one for pod, _ in templates(manifests) for one in containers(pod) if one["name"] == name
    ]
    assert len(found) == 1, f"{name}: {len(found)}"
    return found[0]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def files(manifests: list[Manifest]) -> dict[str, str]:
    (found,) = of_kind(manifests, "ConfigMap").values()
    data: dict[str, str] = found["data"]
    return data


def test_helm_finds_no_fault(values: Values) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert report["errors"] == []
    # The icon of the chart is recommended.
    assert {one["error"] for one in report["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_the_manifests(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["apiVersion"] not in EXTENSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_chart_asks_for_a_kubernetes_that_is_tested(chart: helm_python.Chart) -> None:
    assert chart.metadata["kubeVersion"].startswith(">=1.29")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart.metadata["appVersion"] == project["version"]


def test_each_manifest_has_a_name_of_the_release(manifests: list[Manifest]) -> None:
    named = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(named) == len(set(named))
    assert all(name.startswith("shop-newshelf") for _, name in named)


def test_a_release_named_like_the_chart_is_not_named_twice(chart: helm_python.Chart) -> None:
    texts = chart.render(name="newshelf-eu")
    assert (
        yaml.safe_load(texts["newshelf/templates/pods.yaml"])["metadata"]["name"] == "newshelf-eu"
    )


def test_every_container_is_hardened_and_limited(manifests: list[Manifest]) -> None:
    for pod, _ in templates(manifests):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for one in containers(pod):
            assert one["securityContext"] == {
                "runAsNonRoot": True,
                "privileged": False,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["resources"]["limits"].keys() >= {"cpu", "memory"}
            assert one["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_images_are_those_of_the_values(render: Render) -> None:
    manifests = render(INSTALLATIONS["training"])
    images = {
        one["name"]: one["image"] for pod, _ in templates(manifests) for one in containers(pod)
    }
    trains = {"archive": "newshelf-cuda:0.1.0", "retrain": "newshelf-cuda:0.1.0"}
    assert images == dict.fromkeys(images, "registry.example/newshelf-serving:7") | trains


@pytest.mark.parametrize("image", ["image", "training.image"])
def test_the_images_are_built_as_the_chart_runs_them(chart: helm_python.Chart, image: str) -> None:
    values = chart.values
    named = values["image"] if image == "image" else values["training"]["image"]
    group = named["repository"].removeprefix("newshelf-")
    text = (ROOT / "deploy" / "images" / f"{group}.Containerfile").read_text()
    root, user = values["image"]["root"], values["securityContext"]
    assert f"PYTHONPATH={root} " in text
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in text
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE))
    named_paths = {one for line in copied for one in line.split()}
    for needed in ("config.properties", "configs", "deploy/torchserve", "newshelf", "handlers"):
        assert needed in named_paths
    assert (CHART / "files").relative_to(ROOT).as_posix() in named_paths


def test_every_probe_asks_a_route_that_needs_no_key(manifests: list[Manifest]) -> None:
    probes = {
        (one["name"], kind): (
            one[kind]["httpGet"],
            {port["name"]: port["containerPort"] for port in one["ports"]},
        )
        for pod, _ in templates(manifests)
        for one in containers(pod)
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
        if "httpGet" in one.get(kind, {})
    }
    assert probes.keys() == {
        ("models", "startupProbe"),
        ("models", "livenessProbe"),
        ("gateway", "startupProbe"),
        ("gateway", "readinessProbe"),
        ("gateway", "livenessProbe"),
    }
    plan = GatewayPlan.model_validate_json(files(manifests)["gateway.json"])
    for (name, _), (asked, ports) in probes.items():
        route = asked["path"].partition("?")[0]
        if name == "gateway":
            assert route in ROUTES
            assert route in {"/healthz", "/readyz"}
            assert ports[asked["port"]] == plan.settings.port
        else:
            # TorchServe's only page without a token.
            assert route == "/metrics"
            assert ports[asked["port"]] == ports_of(PROPERTIES).metrics


def test_a_program_that_no_longer_beats_is_restarted(render: Render, tmp_path: Path) -> None:
    found = {one["name"]: one for pod, _ in templates(render({})) for one in containers(pod)}
    own = tmp_path / "own.beat"
    for program in (found["shelf"], found["controller"]):
        [beats] = [one["value"] for one in program["env"] if one["name"] == HEARTBEAT]
        *shell, command = program["livenessProbe"]["exec"]["command"]
        probe = [*shell, command.replace(beats, str(own))]
        assert str(own) in probe[-1]
        own.touch()
        assert subprocess.run(probe, check=False).returncode == 0
        long_ago_s = time.time() - 600
        os.utime(own, (long_ago_s, long_ago_s))
        assert subprocess.run(probe, check=False).returncode != 0


def test_the_gateway_listens_outside_and_torchserve_on_loopback(
    manifests: list[Manifest], host: ModuleType
) -> None:
    written = files(manifests)
    plan = GatewayPlan.model_validate_json(written["gateway.json"])
    assert plan.settings.host == "0.0.0.0"  # noqa: S104 - the pod's
    ports = ports_of(PROPERTIES)
    assert plan.inference_url == f"http://127.0.0.1:{ports.inference}"
    assert plan.management_url == f"http://127.0.0.1:{ports.management}"
    assert {PROPERTIES[f"{name}_address"] for name in ("inference", "management")} == {
        plan.inference_url,
        plan.management_url,
    }
    own = host.HostPlan.model_validate_json(written["host.json"])
    assert own.properties == {"metrics_address": f"http://0.0.0.0:{ports.metrics}"}


def test_every_volume_of_a_pod_is_there(manifests: list[Manifest], values: Values) -> None:
    claims = {*of_kind(manifests, "PersistentVolumeClaim")}
    there = {
        ("configMap", "name"): {*of_kind(manifests, "ConfigMap")},
        ("secret", "secretName"): {*of_kind(manifests, "Secret"), *given_secrets(values)},
        ("persistentVolumeClaim", "claimName"): {
            *claims,
            values.get("artifacts", {}).get("existingClaim"),
        },
    }
    for pod, _ in templates(manifests):
        assert pod["spec"]["serviceAccountName"] in of_kind(manifests, "ServiceAccount")
        for volume in pod["spec"]["volumes"]:
            (kind,) = volume.keys() - {"name"}
            for (known, name), objects in there.items():
                assert kind != known or volume[kind][name] in objects


def given_secrets(values: Values) -> set[str]:
    """Names of the secrets that the values say to exist."""
    named = {
        values.get("database", {}).get("passwordSecret"),
        values.get("keys", {}).get("existingSecret"),
        values.get("artifacts", {}).get("fetch", {}).get("secret"),
        values.get("podMonitor", {}).get("keySecret"),
    }
    return {name for name in named if name}


def test_every_secret_of_a_variable_is_there(manifests: list[Manifest], values: Values) -> None:
    own, given = of_kind(manifests, "Secret"), given_secrets(values)
    for one in (one for pod, _ in templates(manifests) for one in containers(pod)):
        for source in one.get("envFrom", []):
            assert source["secretRef"]["name"] in given
        for variable in one["env"]:
            if "valueFrom" in variable:
                secret = variable["valueFrom"]["secretKeyRef"]
                assert secret["name"] in {*own, *given}
                assert secret["name"] in given or secret["key"] in own[secret["name"]]["stringData"]
    for monitor in of_kind(manifests, "PodMonitor").values():
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if "authorization" in endpoint:
                assert endpoint["authorization"]["credentials"]["name"] in given


def test_every_mount_has_a_volume_and_every_volume_a_mount(manifests: list[Manifest]) -> None:
    for pod, owner in templates(manifests):
        claims = owner["spec"].get("volumeClaimTemplates", [])
        there = {one["name"] for one in pod["spec"]["volumes"]}
        there |= {one["metadata"]["name"] for one in claims}
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert mounted == there


def test_every_selector_selects_a_pod(manifests: list[Manifest]) -> None:
    pods = [pod for pod, _ in templates(manifests)]
    affinities = [
        term["labelSelector"]["matchLabels"]
        for pod in pods
        for term in pod["spec"]
        .get("affinity", {})
        .get("podAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", [])
    ]
    selectors = [one["spec"]["selector"] for one in of_kind(manifests, "Service").values()]
    for kind in ("StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        selectors += [
            one["spec"]["selector"]["matchLabels"] for one in of_kind(manifests, kind).values()
        ]
    policies = of_kind(manifests, "NetworkPolicy").values()
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in policies]
    for selector in [*selectors, *affinities]:
        selected = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
        assert selected
    # Only the pods that serve get requests; the policy is for all pods.
    for selector in selectors[:2]:
        assert [
            owner["kind"]
            for pod, owner in templates(manifests)
            if selector.items() <= pod["metadata"]["labels"].items()
        ] == ["StatefulSet"]


def test_every_port_of_a_service_and_a_monitor_is_a_containers(manifests: list[Manifest]) -> None:
    ports = {
        port["name"]
        for one in containers(server(manifests)["spec"]["template"])
        for port in one.get("ports", [])
    }
    for service in of_kind(manifests, "Service").values():
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for monitor in of_kind(manifests, "PodMonitor").values():
        assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports
    assert server(manifests)["spec"]["serviceName"] in of_kind(manifests, "Service")


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
    # The reports of the training are on the shared volume.
    moved = {"placements": Path(placements), "drift": Path("/data/workspace/drift/report.json")}
    plan = GatewayPlan.model_validate_json(written["gateway.json"])
    assert plan.model_dump() == expected.model_copy(update=moved).model_dump()
    if "controller.json" in written:
        controller = ControllerPlan.model_validate_json(written["controller.json"])
        demo: Any = type("Demo", (), {"history": []})
        wanted = serve.plan_controller(state, own, settings, demo)
        assert controller == wanted.model_copy(update={"question": {"k": 5}})
    if "shelf.json" in written:
        rules = (
            "/etc/newshelf/rules.toml" if "rules" in values else "/opt/newshelf/configs/rules.toml"
        )
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


def test_one_replica_shares_its_volume_with_the_training(render: Render, host: ModuleType) -> None:
    manifests = render(INSTALLATIONS["training"])
    plan = host.HostPlan.model_validate_json(files(manifests)["host.json"])
    assert plan.state == plan.workspace == Path("/data/workspace")
    assert "volumeClaimTemplates" not in server(manifests)["spec"]
    assert container(manifests, "controller")
    for name in ("models", "gateway", "shelf", "controller", "retrain"):
        mounts = {one["mountPath"]: one for one in container(manifests, name)["volumeMounts"]}
        assert not mounts["/data"].get("readOnly")


@pytest.mark.parametrize("name", ["several", "object storage"])
def test_several_replicas_have_state_and_a_controller_of_their_own(
    render: Render, name: str, host: ModuleType
) -> None:
    manifests = render(INSTALLATIONS[name])
    written = files(manifests)
    plan = host.HostPlan.model_validate_json(written["host.json"])
    assert (plan.version, plan.workspace) == ("0f3a9c51d2e7", None)
    assert plan.state == Path("/state")
    controller = ControllerPlan.model_validate_json(written["controller.json"])
    assert controller.store_url == plan.store_url
    assert controller.promoted == plan.own.promoted
    assert container(manifests, "controller")
    spec = server(manifests)["spec"]
    assert [one["metadata"]["name"] for one in spec["volumeClaimTemplates"]] == ["state"]
    assert "replicas" not in spec
    mounts = {one["mountPath"]: one for one in container(manifests, "models")["volumeMounts"]}
    assert mounts["/data"]["readOnly"] is True
    assert not mounts["/state"].get("readOnly")


def test_archives_from_object_storage_are_fetched_first(render: Render) -> None:
    manifests = render(INSTALLATIONS["object storage"])
    first, second, *_ = containers(server(manifests)["spec"]["template"])
    assert (first["name"], second["name"]) == ("fetch", "prepare")
    assert first["args"][-1] == "/data/model_store"
    assert not of_kind(manifests, "PersistentVolumeClaim")


def test_the_models_start_before_the_gateway_and_end_after_it(manifests: list[Manifest]) -> None:
    spec = server(manifests)["spec"]["template"]["spec"]
    sidecars = [
        one["name"] for one in spec["initContainers"] if one.get("restartPolicy") == "Always"
    ]
    assert sidecars[0] == "models"
    assert [one["name"] for one in spec["containers"]] == ["gateway"]
    # psutil finds TorchServe's process from the containers of shelf and controller.
    assert spec["shareProcessNamespace"] is True
    drain = float(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    plan = GatewayPlan.model_validate_json(files(manifests)["gateway.json"])
    assert spec["terminationGracePeriodSeconds"] > drain + plan.settings.max_timeout_ms / 1000 + 60


def declared_metrics() -> set[str]:
    declared = yaml.safe_load((ROOT / "deploy/torchserve/metrics.yaml").read_text())
    return {one["name"] for one in declared["ts_metrics"]["counter"]}


def test_keda_asks_for_metrics_that_torchserve_keeps(render: Render) -> None:
    manifests = render(INSTALLATIONS["object storage"])
    (scaled,) = of_kind(manifests, "ScaledObject").values()
    (trigger,) = scaled["spec"]["triggers"]
    asked = set(re.findall(r"ts_\w+", trigger["metadata"]["query"]))
    assert asked == {"ts_queue_latency_microseconds", "ts_inference_requests_total"}
    assert asked <= declared_metrics()
    assert 'pod=~"shop-newshelf-[0-9]+"' in trigger["metadata"]["query"]
    assert not of_kind(manifests, "HorizontalPodAutoscaler")


@pytest.mark.parametrize(
    ("name", "kind"), [("several", "HorizontalPodAutoscaler"), ("object storage", "ScaledObject")]
)
def test_the_autoscaler_scales_the_pods(render: Render, name: str, kind: str) -> None:
    manifests = render(INSTALLATIONS[name])
    (scaler,) = of_kind(manifests, kind).values()
    target = scaler["spec"]["scaleTargetRef"]
    found = server(manifests)
    assert (target["apiVersion"], target["kind"], target["name"]) == (
        found["apiVersion"],
        found["kind"],
        found["metadata"]["name"],
    )


def test_the_documents_rule_gives_the_metric_of_the_autoscaler(render: Render) -> None:
    (scaler,) = of_kind(render(INSTALLATIONS["several"]), "HorizontalPodAutoscaler").values()
    (metric,) = scaler["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"```yaml prometheus-adapter\n(.*?)```", text, re.DOTALL)
    (parsed,) = yaml.safe_load(rule)["rules"]["custom"]
    assert parsed["name"]["as"] == name
    assert set(re.findall(r"ts_[a-z_]+", rule)) <= declared_metrics()


def test_the_network_policy_lets_in_clients_and_out_to_the_database(render: Render) -> None:
    (policy,) = of_kind(render(INSTALLATIONS["training"]), "NetworkPolicy").values()
    spec = policy["spec"]
    clients, prometheus = spec["ingress"]
    assert clients["from"] == INSTALLATIONS["training"]["networkPolicy"]["clients"]
    assert [one["port"] for one in clients["ports"]] == [8000]
    assert [one["port"] for one in prometheus["ports"]] == [8000, 8082]
    assert [one["port"] for rule in spec["egress"] for one in rule["ports"]] == [53, 53, 6432, 443]
    (policy,) = of_kind(render({}), "NetworkPolicy").values()
    assert policy["spec"]["ingress"] == [
        {"from": [{"podSelector": {}}], "ports": [{"port": 8000, "protocol": "TCP"}]}
    ]
    # Without a database elsewhere, nothing but names is looked up.
    assert [one["port"] for rule in policy["spec"]["egress"] for one in rule["ports"]] == [53, 53]


def test_the_cron_job_retrains_one_at_a_time_next_to_the_server(render: Render) -> None:
    jobs = of_kind(render(INSTALLATIONS["training"]), "CronJob")
    job = jobs["shop-newshelf-retrain"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert not job.get("suspend")
    assert len(job["schedule"].split()) == 5
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (one,) = pod["containers"]
    assert one["command"][-3:] == ["--gate", "no-worse", "--on-drift"]
    ignored, refused = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert refused["onExitCodes"]["containerName"] == one["name"]
    # 3: not promoted (newshelf.cli.retrain).
    assert refused["onExitCodes"]["values"] == [1, 3]
    assert one["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert jobs["shop-newshelf-train"]["spec"]["suspend"] is True


def test_pods_of_the_training_share_the_servers_volume(render: Render) -> None:
    manifests = render(INSTALLATIONS["training"])
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod, _ in templates(manifests)
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert used == {"shop-newshelf-data"}
    for name, job in of_kind(manifests, "CronJob").items():
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert "podAffinity" in pod["affinity"], name
    workspace = Workspace(Path("/data/workspace"), Path("/data/catalog"), is_sample=False)
    promoted = ControllerPlan.model_validate_json(files(manifests)["controller.json"]).promoted
    # Where a retraining looks for the version that is served.
    assert promoted == workspace.promoted
