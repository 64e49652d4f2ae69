"""What the tests of the pages share: hostile texts, pictures, tokens of forms, rollouts."""

import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx
from PIL import Image

from newshelf.rollout.plan import RolloutState, draft
from newshelf.store.records import TrafficSplit
from tests.gateways import Gateway
from tests.unit.rollout.conftest import plan as plan_with

HOSTILE = "\"><script>alert('1')</script>{{ 7 * 7 }} ${x}"


def png(color: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def token_in(page: httpx.Response) -> str:
    return re.findall(r'name="token" value="([0-9a-f]{64})"', page.text)[0]


PLAN = plan_with(control="1.0", challenger="1.1")
LOOK: dict[str, Any] = {
    "phase": "ramp",
    "analysis": {
        "metrics": [
            {
                "metric": "ctr", "control": 0.1, "challenger": 0.12, "effect": 0.2, "low": -0.05,
                "high": "Infinity", "p": 0.2, "verdict": "unclear", "reason": "",
            },
            {
                "metric": "cvr", "control": "NaN", "challenger": "NaN", "effect": "NaN",
                "low": "-Infinity", "high": "Infinity", "p": 1.0, "verdict": "unknown",
                "reason": "too few",
            },
        ],
        "guardrails": [
            {
                "metric": "error_rate", "control": 0.0, "challenger": 0.3, "low": 0.1,
                "allowed": 0.02, "failed": True,
            },
        ],
    },
}  # fmt: skip


def _look(part: float) -> str:
    """A look with less doubt than those before."""
    one, other = LOOK["analysis"]["metrics"]
    bounds = {"effect": 0.1 * part, "low": 0.2 * part - 0.4, "high": 0.8 - 0.4 * part}
    analysis = {**LOOK["analysis"], "metrics": [one | bounds, other]}
    return json.dumps(LOOK | {"analysis": analysis})


LOOKS = [_look(number / 20) for number in range(1, 21)]
"""Of a rollout that goes well."""


def begin(gateway: Gateway, phase: str = "ramp", name: str = "spring") -> None:
    """A rollout as the controller would have it."""
    state = draft(name, "salt", datetime.now(UTC)).model_copy(update={"phase": phase})
    split = TrafficSplit(rollout=name, salt="salt", control="1.0", challenger="1.1", share=0.1)
    gateway.store.rollouts.create(
        name, PLAN.model_dump_json(), state.model_dump_json(), split if phase == "ramp" else None
    )


def rollout_of(gateway: Gateway, name: str = "spring") -> RolloutState:
    return RolloutState.model_validate_json(gateway.store.rollouts.get(name).state)
