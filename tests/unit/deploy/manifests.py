"""Parts of rendered manifests, for the tests of the Helm chart."""

from collections.abc import Iterator
from pathlib import Path

from newshelf.server.torchserve import read_properties
from tests.unit.deploy.conftest import Manifest

ROOT = Path(__file__).resolve().parents[3]
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
