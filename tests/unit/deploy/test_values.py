"""The values of the chart: each is checked, documented, and refused with a reason."""

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import typer.main
import yaml

from newshelf.cli.app import app
from tests.unit.deploy.conftest import CHART, INSTALLATIONS, POSTGRES, Render, Values

DOCS = Path(__file__).resolve().parents[3] / "docs"
TEXT = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
TUTORIAL = (DOCS / "tutorial-cluster.md").read_text(encoding="utf-8")
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def flat(values: Values, prefix: str = "") -> dict[str, Any]:
    """Return the values as ``{"image.tag": ""}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def test_the_schema_is_that_of_the_settings(schema: ModuleType) -> None:
    written = json.loads((CHART / "values.schema.json").read_text())
    assert written == schema.schema(), "run: python deploy/helm/schema.py"


def test_the_schema_names_every_value_and_nothing_else(schema: ModuleType) -> None:
    def properties(part: Values, prefix: str = "") -> set[str]:
        found = set()
        for key, value in part["properties"].items():
            inner = properties(value, f"{prefix}{key}.") if "properties" in value else set()
            found |= inner or {f"{prefix}{key}"}
        return found

    named = properties(schema.schema())
    # Helm hands `global` to every chart of an umbrella; the others may be set and have no default.
    allowed = {
        "global",
        "keys.files.keys.json",
        "keys.files.cursor.key",
        "keys.files.pseudonym.key",
    }
    parts = re.compile(r"\.(requests|limits)\..*$")
    assert {parts.sub(r".\1", key) for key in flat(DEFAULTS)} - {"keys.files"} == named - allowed


def test_every_value_is_documented_with_its_default() -> None:
    table = dict(
        re.findall(
            r"^\| `([\w.]+)` \| (?:`([^`]*)`)? ?\|", TEXT.partition("## Values")[2], re.MULTILINE
        )
    )
    assert table == {
        key: ""
        if value in ("", {}, [])
        else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
        for key, value in flat(DEFAULTS).items()
    }


SEVERAL = INSTALLATIONS["several"]
REFUSED: dict[str, tuple[Values, str]] = {
    "unknown": ({"replica": 2}, "'replica' not allowed"),
    "unknown in a part": ({"service": {"ports": 80}}, "'ports' not allowed"),
    "unknown setting": ({"settings": {"gateway": {"timout_ms": 1}}}, "'timout_ms' not allowed"),
    "type": ({"replicas": "two"}, "/replicas"),
    "setting out of range": ({"settings": {"shelf": {"poll_ms": 1}}}, "/settings/shelf/poll_ms"),
    "root": ({"securityContext": {"runAsUser": 0}}, "/securityContext/runAsUser"),
    "no limit": ({"resources": {"shelf": {"limits": {"memory": None}}}}, "/resources/shelf/limits"),
    "no replica": ({"replicas": 0}, "/replicas"),
    "another database": ({"database": {"url": "mysql://db/x"}}, "/database/url"),
    "password in the address": (
        {"database": {"url": "postgresql+psycopg://me:secret@db/x"}},
        "set database.passwordSecret",
    ),
    "two passwords": ({"database": {"password": "a", "passwordSecret": "b"}}, "not both"),
    "two sources of keys": (
        {"keys": {"existingSecret": "a", "files": {"cursor.key": "b"}}},
        "not both",
    ),
    "several on SQLite": ({"replicas": 2}, "database.url is missing"),
    "several without a version": (
        {"replicas": 2, "database": {"url": POSTGRES}},
        "model.version is missing",
    ),
    "several without keys": (SEVERAL | {"keys": {"existingSecret": ""}}, "keys are missing"),
    "several without a cursor's key": (
        SEVERAL | {"keys": {"files": {"keys.json": "{}"}}},
        "keys.files lacks cursor.key",
    ),
    "several without a pseudonyms' key": (
        SEVERAL
        | {
            "keys": {"files": {"keys.json": "{}", "cursor.key": "a"}},
            "settings": {"store": {"pseudonyms": True}},
        },
        "keys.files lacks pseudonym.key",
    ),
    "several on one node's volume": (
        SEVERAL | {"artifacts": {"existingClaim": ""}},
        "artifacts.accessModes",
    ),
    "fetched by nothing": (
        {"model": {"version": "1"}, "artifacts": {"fetch": {"enabled": True}}},
        "artifacts.fetch.image is missing",
    ),
    "retraining without a training": ({"retrain": {"enabled": True}}, "training.enabled"),
    "retraining of several": (
        SEVERAL | {"training": {"enabled": True}, "retrain": {"enabled": True}},
        "a rollout covers one model server",
    ),
    "retraining on SQLite": (
        {"training": {"enabled": True}, "retrain": {"enabled": True}},
        "database.url is missing",
    ),
    "training without a volume": (
        INSTALLATIONS["object storage"] | {"training": {"enabled": True}},
        "training.enabled needs a volume",
    ),
    "fewer than the least": (
        SEVERAL | {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}},
        "larger than autoscaling.maxReplicas",
    ),
    "KEDA without Prometheus": (
        SEVERAL | {"autoscaling": {"enabled": True, "kind": "keda"}},
        "autoscaling.prometheusUrl is missing",
    ),
    "alerts without metrics": (
        {"alerts": {"enabled": True}, "podMonitor": {"enabled": True}},
        "podMonitor.keySecret",
    ),
    "a setting of the chart": ({"settings": {"store": {"spool": "/x"}}}, "settings.store.spool"),
    "no gateway": ({"settings": {"gateway": {"enabled": False}}}, "settings.gateway.enabled"),
}


@pytest.mark.parametrize(("values", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_refused_with_its_place_and_reason(
    render: Render, values: Values, reason: str
) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(reason)):
        render(values)


@pytest.mark.parametrize("example", re.findall(r"```yaml values\n(.*?)```", TEXT, re.DOTALL))
def test_every_example_of_values_renders(render: Render, example: str) -> None:
    assert render(yaml.safe_load(example))


@pytest.fixture(scope="module")
def tutorial_values() -> Values:
    """The values that the tutorial writes."""
    [text] = re.findall(r"^cat > cluster.yaml <<END\n(.*?)^END", TUTORIAL, re.MULTILINE | re.DOTALL)
    values: Values = yaml.safe_load(text.replace("$version", "0f3a9c51d2e7"))
    return values


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_the_tutorials_cluster(
    render: Render, tutorial_values: Values, version: str
) -> None:
    manifests = render(tutorial_values)
    assert {"StatefulSet", "Service", "NetworkPolicy"} <= {one["kind"] for one in manifests}
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_tutorial_makes_every_secret_that_its_values_name(tutorial_values: Values) -> None:
    named = {
        tutorial_values["artifacts"]["fetch"]["secret"],
        tutorial_values["database"]["passwordSecret"],
        tutorial_values["keys"]["existingSecret"],
    }
    assert set(re.findall(r"create secret generic (\S+)", TUTORIAL)) == named


@pytest.mark.parametrize("text", [TEXT, TUTORIAL], ids=["how-to", "tutorial"])
def test_every_command_of_the_documents_names_what_the_chart_makes(
    chart: helm_python.Chart, text: str
) -> None:
    values = {"training": {"enabled": True}, "database": {"url": POSTGRES}}
    texts = chart.render(values, name="newshelf", namespace="shop")
    named = [
        one for text in texts.values() if "apiVersion" in text for one in yaml.safe_load_all(text)
    ]
    objects = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in named}
    (server,) = (one for one in named if one["kind"] == "StatefulSet")
    pod = server["spec"]["template"]["spec"]
    containers = {one["name"] for one in (*pod["initContainers"], *pod["containers"])}
    named_objects = set(re.findall(r"\b(?:cronjob|statefulset|service)/[\w-]+", text))
    assert named_objects
    assert named_objects <= objects
    entered = {name for _, name in re.findall(r"(newshelf-0)\S* (?:\S+ )?-c (\w+)", text)}
    assert entered >= {"prepare", "controller"}
    # The image with the archives is the reader's; without it there is no such container.
    assert entered - {"fetch"} <= containers
    assert set(re.findall(r"--set ([\w.]+)=", text)) <= flat(DEFAULTS).keys()


def test_every_verb_of_the_documents_exists() -> None:
    commands: Any = typer.main.get_command(app)
    verbs = re.findall(r"(?:\./run|-m newshelf) (rollout|keys|items) (\w+)", TEXT + TUTORIAL)
    assert verbs
    for group, verb in verbs:
        assert verb in commands.commands[group].commands
