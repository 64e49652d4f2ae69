"""Writes the schema of the chart's values: ``python deploy/helm/schema.py``.

The part of ``settings`` is that of Newshelf's settings, so the chart refuses what they refuse.
"""

import json
from pathlib import Path
from typing import Any

from newshelf.config import Settings

FILE = Path(__file__).parent / "newshelf" / "values.schema.json"

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9._-]*$"}
FLAG: Schema = {"type": "boolean"}
MAP: Schema = {"type": "object"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
SIZE: Schema = {"type": "string", "pattern": "^[0-9]+(Mi|Gi|Ti)$"}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
AMOUNT: Schema = {"type": ["string", "integer", "number"]}


def strict(**properties: Schema) -> Schema:
    """Return the schema of an object without further keys."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def items(of: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": of}


AMOUNTS: Schema = {"type": "object", "additionalProperties": AMOUNT}
# A container without a limit of memory could take its neighbours' on the node.
RESOURCES: Schema = strict(requests=AMOUNTS, limits={**AMOUNTS, "required": ["memory"]}) | {
    "required": ["limits"]
}
# A user that is not root.
USER: Schema = {"type": "integer", "minimum": 1}


def bare(part: Any) -> Any:
    """Return a schema without texts and defaults, which refuse nothing."""
    if isinstance(part, list):
        return [bare(one) for one in part]
    if not isinstance(part, dict):
        return part
    named = part.get("properties", {}), part.get("$defs", {})
    kept = {
        key: bare(value)
        for key, value in part.items()
        if key not in {"title", "description", "default", "properties", "$defs"}
    }
    for key, table in zip(("properties", "$defs"), named, strict=True):
        if table:
            kept[key] = {name: bare(value) for name, value in table.items()}
    return kept


def schema() -> Schema:
    """Return the schema of the values."""
    settings = bare(Settings.model_json_schema(ref_template="#/$defs/{model}"))
    definitions = settings.pop("$defs")
    values = strict(
        image=strict(
            repository=TEXT,
            tag=TEXT,
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            root={"type": "string", "pattern": "^/"},
            python=TEXT,
        ),
        imagePullSecrets=items(strict(name=TEXT)),
        replicas=POSITIVE,
        model=strict(version=NAME),
        settings={"$ref": "#/$defs/Settings"},
        placements=TEXT,
        rules=TEXT,
        extraEnv=items({"type": "object", "required": ["name"]}),
        database=strict(
            url={"type": "string", "pattern": r"^$|^postgresql\+psycopg://"},
            passwordSecret=NAME,
            passwordKey=NAME,
            password=TEXT,
        ),
        keys=strict(
            existingSecret=NAME,
            files=strict(**dict.fromkeys(("keys.json", "cursor.key", "pseudonym.key"), TEXT)),
        ),
        artifacts=strict(
            existingClaim=NAME,
            storageClass=TEXT,
            accessModes=items({"enum": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"]}),
            size=SIZE,
            fetch=strict(
                enabled=FLAG,
                image=TEXT,
                command=items(TEXT),
                args=items(TEXT),
                env=items({"type": "object", "required": ["name"]}),
                secret=NAME,
                size=SIZE,
            ),
        ),
        state=strict(storageClass=TEXT, size=SIZE),
        temporarySize=SIZE,
        resources=strict(
            **dict.fromkeys(("models", "gateway", "shelf", "controller", "prepare"), RESOURCES)
        ),
        startSeconds={"type": "integer", "minimum": 60},
        drainSeconds={"type": "integer", "minimum": 0},
        terminationGracePeriodSeconds={"type": "integer", "minimum": 30},
        service=strict(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            port={"type": "integer", "minimum": 1, "maximum": 65535},
            annotations=TEXTS,
        ),
        autoscaling=strict(
            enabled=FLAG,
            kind={"enum": ["hpa", "keda"]},
            minReplicas=POSITIVE,
            maxReplicas=POSITIVE,
            queueMilliseconds=POSITIVE,
            scaleDownSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
            prometheusUrl={"type": "string", "pattern": "^$|^https?://"},
        ),
        podDisruptionBudget=strict(enabled=FLAG, maxUnavailable=AMOUNT),
        networkPolicy=strict(
            enabled=FLAG, clients=items(MAP), prometheus=items(MAP), egress=items(MAP)
        ),
        podMonitor=strict(enabled=FLAG, interval=TEXT, labels=TEXTS, keySecret=NAME, keyName=NAME),
        alerts=strict(enabled=FLAG, labels=TEXTS),
        training=strict(
            enabled=FLAG,
            image=strict(repository=TEXT, tag=TEXT),
            gpus={"type": "integer", "minimum": 0},
            resources=RESOURCES,
            sameNode=FLAG,
            timeLimitSeconds=POSITIVE,
        ),
        retrain=strict(
            enabled=FLAG,
            schedule=TEXT,
            timeZone=TEXT,
            gate={"enum": ["", "better", "no-worse", "none"]},
            onDrift=FLAG,
            plan=TEXT,
        ),
        serviceAccount=strict(annotations=TEXTS),
        securityContext=strict(runAsUser=USER, runAsGroup=USER, fsGroup=USER),
        podAnnotations=TEXTS,
        podLabels=TEXTS,
        nodeSelector=TEXTS,
        tolerations=items(MAP),
        affinity=MAP,
        topologySpreadConstraints=items(MAP),
        **{"global": MAP},
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **values,
        "$defs": {**definitions, "Settings": settings},
    }


def text() -> str:
    """Return the file's text."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
