"""The Helm chart: replicas, autoscaling, network policy, and jobs of the training."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from newshelf.pipeline.workspace import Workspace
from newshelf.server.program import ControllerPlan, GatewayPlan
from tests.unit.deploy.conftest import INSTALLATIONS, Manifest, Render
from tests.unit.deploy.manifests import (
    ROOT,
    container,
    containers,
    files,
    of_kind,
    server,
    templates,
)


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
