"""The chart, rendered with values of several installations."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
CHART = DEPLOY / "helm" / "newshelf"

Values = dict[str, Any]
Manifest = dict[str, Any]
Render = Callable[[Values], list[Manifest]]

POSTGRES = "postgresql+psycopg://newshelf@db.prod:6432/newshelf?sslmode=verify-full"
KEYS = {"keys.json": '{"keys": []}', "cursor.key": "ab" * 32, "pseudonym.key": "cd" * 32}
INSTALLATIONS: dict[str, Values] = {
    "default": {},
    "training": {
        "image": {"repository": "registry.example/newshelf-serving", "tag": "7"},
        "imagePullSecrets": [{"name": "registry"}],
        "settings": {
            "gateway": {
                "max_timeout_ms": 5000,
                "processes": 2,
                "record": "best_effort",
                "trusted_proxies": ["10.42.7.0/24"],
            },
            "archive": {"limits": {"max_pixels": 50_000_000, "max_picture_bytes": 4_000_000}},
            "store": {"pseudonyms": True, "spool_max_bytes": 1_000_000},
            "shelf": {"fold_rows": 100},
            "rollout": {"tick_s": 2.5},
            "webhooks": {
                "urls": ["https://hooks.example/shop"],
                "secret": "/data/workspace/webhooks.key",
            },
            "robots": {"daily": 3},
            "training": {"event_weights": {"view": 0.5}},
            "logs": {"kept": 2},
            "finetune": {"source": ["Rings", "Bags"], "epochs": 3},
        },
        "placements": "[home]\nk = 12\n",
        "rules": "rules = []\n",
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4318"}],
        "database": {"url": POSTGRES, "password": "secret of the database"},
        "keys": {"files": KEYS},
        "training": {"enabled": True, "gpus": 1},
        "retrain": {"enabled": True, "gate": "no-worse", "onDrift": True, "plan": "control: '1'\n"},
        "podMonitor": {"enabled": True, "keySecret": "prometheus-key", "labels": {"team": "shop"}},
        "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "front"}}}],
            "prometheus": [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}],
            "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        },
        "service": {"annotations": {"example.org/owner": "shop"}},
        "podLabels": {"team": "shop"},
        "podAnnotations": {"example.org/owner": "shop"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "serviceAccount": {"annotations": {"example.org/role": "models"}},
    },
    "several": {
        "model": {"version": "0f3a9c51d2e7"},
        "database": {"url": POSTGRES, "passwordSecret": "postgres"},
        "keys": {"existingSecret": "gateway-keys"},
        "artifacts": {"existingClaim": "models"},
        "autoscaling": {"enabled": True},
        "settings": {"shelf": {"enabled": False}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
    },
    "object storage": {
        "replicas": 3,
        "model": {"version": "0f3a9c51d2e7"},
        "database": {"url": POSTGRES, "passwordSecret": "postgres"},
        "keys": {"existingSecret": "gateway-keys"},
        "artifacts": {
            "storageClass": "fast",
            "fetch": {
                "enabled": True,
                "image": "rclone/rclone:1.70",
                "args": ["copy", "models:shop/0f3a9c51d2e7", "/data/model_store"],
                "env": [{"name": "RCLONE_CONFIG_MODELS_TYPE", "value": "s3"}],
                "secret": "object-storage",
            },
        },
        "state": {"storageClass": "fast"},
        "autoscaling": {"enabled": True, "kind": "keda", "prometheusUrl": "http://prometheus:9090"},
        "podDisruptionBudget": {"maxUnavailable": "30%"},
    },
}
"""Values by a name of the installation."""


@pytest.fixture(scope="session")
def chart() -> Iterator[helm_python.Chart]:
    """The loaded chart."""
    with helm_python.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: helm_python.Chart) -> Render:
    """Render values as release ``shop`` in the namespace ``prod``."""

    def rendered(values: Values) -> list[Manifest]:
        texts = chart.render(values, name="shop", namespace="prod")
        documents = [
            document
            for name, text in texts.items()
            if name.endswith(".yaml")
            for document in yaml.safe_load_all(text)
        ]
        return [document for document in documents if document is not None]

    return rendered


@pytest.fixture(params=INSTALLATIONS)
def values(request: pytest.FixtureRequest) -> Values:
    """Values of one installation."""
    return INSTALLATIONS[request.param]


@pytest.fixture
def manifests(render: Render, values: Values) -> list[Manifest]:
    """The manifests of one installation."""
    return render(values)


def load_script(path: Path) -> ModuleType:
    """Import a script by its path."""
    spec = importlib.util.spec_from_file_location(f"deploy_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def host() -> ModuleType:
    """The commands of a pod."""
    return load_script(CHART / "files" / "host.py")


@pytest.fixture(scope="session")
def schema() -> ModuleType:
    """The script that writes the schema of the values."""
    return load_script(DEPLOY / "helm" / "schema.py")
