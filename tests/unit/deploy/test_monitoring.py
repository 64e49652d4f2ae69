"""Alert rules, their runbook, and Grafana's dashboards name what the code exports."""

import json
import math
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import promql_parser
import pytest
import typer.main
import yaml
from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from newshelf.cli.app import app
from newshelf.gateway.observability import GatewayMetrics, InstallationMetrics
from newshelf.rollout.plan import PHASES, draft
from newshelf.server.ports import Ports
from newshelf.server.process import Service
from newshelf.server.state import ServerState
from newshelf.store.records import FeedbackOutcome
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore
from tests.routes import ROUTES
from tests.unit.deploy.conftest import INSTALLATIONS, Render

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "newshelf.yml"
PROMTOOL_TESTS = Path(__file__).with_name("alerts.test.yml")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
JOBS = {one["job_name"] for one in PROMETHEUS["scrape_configs"]}
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS["groups"] for rule in group["rules"]
}
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((DEPLOY / "grafana" / "dashboards").iterdir())
}
INTERVAL = "$__rate_interval"
"""Grafana's variable, at least four scrapes."""
UNITS = {"none", "percentunit", "s", "µs", "reqps", "cps"}
TARGET_LABELS = {"job", "instance"}
"""Labels that Prometheus adds to all it reads."""
QUERIES = {
    **{name: rule["expr"] for name, rule in ALERTS.items()},
    **{
        f"{name}: {panel['title']} {target['refId']}": target["expr"].replace(INTERVAL, "5m")
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    },
}


def of_the_installation(folder: Path, store: EventStore) -> bytes:
    """Metrics of what a drift report, a supervisor, a shelf and a controller have left."""
    report = folder / "report.json"
    measures = [{"name": "price", "size": 0.3}]
    until = "2026-01-01T00:00:00+00:00"
    report.write_text(json.dumps({"until": until, "measures": measures, "triggers": []}))
    shelf = {"shelf": Service(name="shelf", command=(), cwd=folder)}
    ServerState(folder, Ports(), folder, {}, "", services=shelf).save()
    store.items.published(socket.gethostname(), "1", 0)
    state = draft("spring", "salt", datetime.now(UTC))
    store.rollouts.create("spring", "{}", state.model_dump_json(), None)
    spool = Spool(folder / "spool.db", 2**20)
    return generate_latest(InstallationMetrics(report, folder / "keys.json", spool, store))


def of_the_gateway(installation: bytes) -> dict[str, set[str]]:
    """Names of the samples on the gateway's page, with their labels."""
    metrics = GatewayMetrics()
    metrics.request("/v1/recommend", 200, 0.01)
    for one in vars(metrics).values():
        # A metric with labels has no sample before a value of them is known.
        if isinstance(one, Counter | Gauge | Histogram) and one._labelnames:
            one.labels(*one._labelnames)
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families((metrics.page() + installation).decode())
        for sample in family.samples
    }


def of_torchserve() -> dict[str, set[str]]:
    """Names of the samples on TorchServe's page, as its metrics file declares them."""
    declared = yaml.safe_load((DEPLOY / "torchserve" / "metrics.yaml").read_text())
    found = {}
    for section, added in (("ts_metrics", set()), ("model_metrics", {"Hostname"})):
        for kind, metrics in declared[section].items():
            endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            for metric in metrics:
                labels = {*metric["dimensions"], *added}
                for ending in endings:
                    bucket = {"le"} if ending == "_bucket" else set()
                    found[metric["name"] + ending] = labels | bucket
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> dict[str, set[str]]:
    """Names of all samples that Prometheus reads, with their labels."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_store, folder / "events.db")
    with EventStore.open(f"sqlite:///{folder / 'events.db'}") as store:
        gateway = of_the_gateway(of_the_installation(folder, store))
    return {"up": set(), **gateway, **of_torchserve()}


def parts(expression: Any) -> Iterator[Any]:
    """Yield a query's expression and all expressions in it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if isinstance(inner, promql_parser.Expr):
            yield from parts(inner)
    for inner in getattr(expression, "args", ()):
        yield from parts(inner)


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    expressions = parts(promql_parser.parse(query))
    return [one for one in expressions if isinstance(one, promql_parser.VectorSelector)]


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_every_metric_and_label_of_a_query_is_exported(
    query: str, exported: dict[str, set[str]]
) -> None:
    found = selectors(query)
    assert found
    labels = TARGET_LABELS.union(*(exported[str(one.name)] for one in found))
    for one in found:
        for matcher in one.matchers.matchers:
            assert matcher.name in exported[str(one.name)] | TARGET_LABELS, (
                f"{one.name}: {matcher.name}"
            )
    for one in parts(promql_parser.parse(query)):
        if isinstance(one, promql_parser.AggregateExpr) and one.modifier is not None:
            assert set(one.modifier.labels) <= labels
    legends = {
        label
        for dashboard in DASHBOARDS.values()
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        if target["expr"].replace(INTERVAL, "5m") == query
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"])
    }
    assert legends <= labels


def test_every_value_that_a_query_names_can_occur() -> None:
    outcomes = {*get_args(FeedbackOutcome), "invalid"}
    source = (ROOT / "newshelf" / "gateway" / "recommend.py").read_text(encoding="utf-8")
    known = {
        ("up", "job"): JOBS,
        ("newshelf_gateway_feedback_total", "outcome"): outcomes,
        ("newshelf_rollout_phase", "phase"): set(PHASES),
        ("newshelf_gateway_shadow_total", "outcome"): set(re.findall(r'"([a-z]+)"', source)),
    }
    for query in QUERIES.values():
        for one in selectors(query):
            for matcher in one.matchers.matchers:
                values = known.get((str(one.name), matcher.name))
                if matcher.name == "route":
                    assert any(re.fullmatch(matcher.value, route) for route in ROUTES)
                elif values is not None:
                    assert set(matcher.value.split("|")) <= values


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_found_by_its_file_and_asks_the_provisioned_source(name: str) -> None:
    provisioning = DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    [source] = yaml.safe_load(provisioning.read_text())["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    dashboard = DASHBOARDS[name]
    assert (dashboard["uid"], dashboard["title"].lower()) == (f"newshelf-{name}", name)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "text"]
    for one in [*panels, *(target for panel in panels for target in panel["targets"])]:
        assert one["datasource"] == wanted
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles) <= 8
    assert all(title.endswith("?") for title in titles)
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


def test_panels_do_not_overlap() -> None:
    for dashboard in DASHBOARDS.values():
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in dashboard["panels"])
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24


def test_limits_of_the_alerts_are_lines_of_the_dashboards() -> None:
    limits = {
        step["value"]
        for dashboard in DASHBOARDS.values()
        for panel in dashboard["panels"]
        if panel["type"] != "text"
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    }
    for name, rule in ALERTS.items():
        query = promql_parser.parse(rule["expr"])
        if isinstance(query, promql_parser.BinaryExpr) and str(query.op) == ">":
            assert math.prod(map(float, str(query.rhs).split("*"))) in limits, name


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (Newshelf\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == list(ALERTS)
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", RUNBOOK, re.MULTILINE)
    assert rows == [
        (name, name.lower(), rule["labels"]["severity"]) for name, rule in ALERTS.items()
    ]
    for name, rule in ALERTS.items():
        section = RUNBOOK.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Meaning", "See", "Do"]
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_every_verb_of_the_runbook_exists() -> None:
    commands: Any = typer.main.get_command(app)
    named = re.findall(r"\./run ([a-z]+)(?: ([a-z]+))?", RUNBOOK)
    assert named
    for verb, inner in named:
        command = commands.commands[verb]
        assert not inner or inner in getattr(command, "commands", {inner: None})
    for title in re.findall(r"dashboard \*(\w+)\*", RUNBOOK):
        assert title.lower() in DASHBOARDS


def test_kubernetes_gets_the_same_rules_and_jobs(render: Render) -> None:
    manifests = render(INSTALLATIONS["training"])
    kinds = {one["kind"]: one for one in manifests}
    assert kinds["PrometheusRule"]["spec"] == GROUPS
    assert kinds["PrometheusRule"]["metadata"]["labels"]["release"] == "prometheus"
    endpoints = kinds["PodMonitor"]["spec"]["podMetricsEndpoints"]
    jobs = [one["replacement"] for each in endpoints for one in each["relabelings"]]
    assert set(jobs) == JOBS - {"prometheus"}


def test_prometheus_reads_the_rules() -> None:
    [pattern] = PROMETHEUS["rule_files"]
    assert list((DEPLOY / "prometheus").glob(pattern)) == [RULES]


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    tests = yaml.safe_load(PROMTOOL_TESTS.read_text(encoding="utf-8"))["tests"]
    for fires in (True, False):
        tried = {
            one["alertname"]
            for test in tests
            for one in test["alert_rule_test"]
            if bool(one.get("exp_alerts")) is fires
        }
        assert tried == set(ALERTS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool of Prometheus")
def test_promtool_evaluates_the_alerts_as_expected() -> None:
    subprocess.run(["promtool", "check", "rules", RULES], check=True)
    subprocess.run(["promtool", "test", "rules", PROMTOOL_TESTS], check=True)
