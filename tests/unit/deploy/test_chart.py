"""The Helm chart: its manifests are valid, hardened and complete."""

import os
import re
import subprocess
import time
import tomllib
from pathlib import Path
from types import ModuleType

import helm_python
import kubernetes_validate
import pytest
import yaml

from newshelf.server.process import HEARTBEAT
from newshelf.server.program import GatewayPlan
from newshelf.server.torchserve import ports_of
from tests.routes import ROUTES
from tests.unit.deploy.conftest import CHART, INSTALLATIONS, Manifest, Render, Values
from tests.unit.deploy.manifests import (
    PROPERTIES,
    ROOT,
    containers,
    files,
    of_kind,
    server,
    templates,
)

EXTENSIONS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
"""Not Kubernetes' own, so that there is no schema."""


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
