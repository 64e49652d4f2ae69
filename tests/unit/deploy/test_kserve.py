"""The manifests for KServe: their programs, plans, probes and objects exist."""

import json
import re
from pathlib import Path
from types import ModuleType

import kubernetes_validate
import pytest
import yaml

from newshelf.server.program import GatewayPlan
from newshelf.server.torchserve import ports_of, read_properties
from tests.routes import ROUTES
from tests.unit.deploy.conftest import CHART, DEPLOY, Manifest

ROOT = DEPLOY.parent
KSERVE = DEPLOY / "kserve"
TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8").partition("## KServe")[2]


@pytest.fixture
def runtime() -> Manifest:
    """The ServingRuntime."""
    found: Manifest = yaml.safe_load((KSERVE / "serving-runtime.yaml").read_text())
    return found


@pytest.fixture
def service() -> Manifest:
    """The InferenceService."""
    found: Manifest = yaml.safe_load((KSERVE / "inference-service.yaml").read_text())
    return found


@pytest.fixture
def plan() -> GatewayPlan:
    """The gateway's plan."""
    return GatewayPlan.model_validate_json((KSERVE / "gateway.json").read_bytes())


def container(runtime: Manifest) -> Manifest:
    (found,) = runtime["spec"]["containers"]
    one: Manifest = found
    return one


def test_the_service_names_the_runtime(runtime: Manifest, service: Manifest) -> None:
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    (supported,) = runtime["spec"]["supportedModelFormats"]
    assert model["modelFormat"].items() <= supported.items()
    assert runtime["spec"]["protocolVersions"] == [model["protocolVersion"]] == ["v2"]
    assert {"/v2", "/v2/models/encoder/infer", "/v2/models/recommender/infer"} <= ROUTES


def test_the_container_is_the_one_that_gets_archives_and_traffic(
    runtime: Manifest, host: ModuleType, plan: GatewayPlan
) -> None:
    one = container(runtime)
    # KServe mounts the archives at /mnt/models in the container of this name.
    assert one["name"] == "kserve-container"
    own = host.HostPlan.model_validate_json((KSERVE / "host.json").read_bytes())
    assert str(own.model_store) == "/mnt/models"
    (port,) = one["ports"]
    assert port["containerPort"] == plan.settings.port
    python, isolated, script, command, path = one["command"]
    assert (python, isolated, path) == ("python", "-P", "/etc/newshelf/host.json")
    assert ROOT / Path(script).relative_to("/opt/newshelf") == CHART / "files" / "host.py"
    assert command in host.COMMANDS


def test_the_plan_fits_the_pod(runtime: Manifest, plan: GatewayPlan, host: ModuleType) -> None:
    own = host.HostPlan.model_validate_json((KSERVE / "host.json").read_bytes()).own
    ports = ports_of(read_properties(ROOT / "config.properties"))
    assert plan.inference_url == f"http://127.0.0.1:{ports.inference}"
    assert plan.management_url == f"http://127.0.0.1:{ports.management}"
    assert plan.api_keys == own.api_keys
    assert plan.torchserve_keys == own.server / "key_file.json"
    assert plan.popular == own.server / "popular.json"
    assert plan.spool is not None
    assert plan.spool.is_relative_to(own.root)
    assert "@" in plan.store_url
    assert ":" not in plan.store_url.partition("//")[2].partition("@")[0]
    mounts = {mount["mountPath"]: mount for mount in container(runtime)["volumeMounts"]}
    assert not mounts[str(own.root)].get("readOnly")


def test_kubernetes_accepts_the_pod(runtime: Manifest) -> None:
    pod = {key: runtime["spec"][key] for key in ("containers", "volumes")}
    # KServe has no schema here, but what it makes is a pod.
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_every_probe_asks_a_route_without_a_key(runtime: Manifest, plan: GatewayPlan) -> None:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(runtime)[kind]["httpGet"]
        assert asked["path"].partition("?")[0] in {"/healthz", "/readyz"} & {*ROUTES}
        assert asked["port"] == plan.settings.port


def test_the_container_is_hardened_and_limited(runtime: Manifest, service: Manifest) -> None:
    security = container(runtime)["securityContext"]
    assert security["runAsUser"] > 0
    assert security == {
        "runAsNonRoot": True,
        "runAsUser": security["runAsUser"],
        "runAsGroup": security["runAsGroup"],
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(runtime)["resources"]["limits"].keys() >= {"cpu", "memory"}
    assert service["spec"]["predictor"]["automountServiceAccountToken"] is False


def test_every_object_is_made_by_the_documents_commands(runtime: Manifest) -> None:
    made = re.findall(r"create (configmap|secret generic) ([\w-]+)", TEXT)
    (files,) = (one for one in runtime["spec"]["volumes"] if one["name"] == "files")
    assert ("configmap", files["configMap"]["name"]) in made
    (keys,) = (one for one in runtime["spec"]["volumes"] if one["name"] == "keys")
    assert ("secret generic", keys["secret"]["secretName"]) in made
    (password,) = (one for one in container(runtime)["env"] if "valueFrom" in one)
    reference = password["valueFrom"]["secretKeyRef"]
    assert ("secret generic", reference["name"]) in made
    assert f"--from-literal={reference['key']}=" in TEXT
    for path in re.findall(r"deploy/kserve/[\w.-]+", TEXT):
        assert (ROOT / path).is_file()
    mounted = {mount["name"] for mount in container(runtime)["volumeMounts"]}
    assert mounted == {one["name"] for one in runtime["spec"]["volumes"]}


def test_the_version_is_that_of_the_chart(runtime: Manifest) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert container(runtime)["image"] == f"newshelf-serving:{chart['appVersion']}"
    assert json.loads((KSERVE / "host.json").read_text())["plans"] == "/etc/newshelf"
