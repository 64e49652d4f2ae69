"""docs/rollout.md lists what there is: fields, defaults, phases."""

import re
from pathlib import Path

from pydantic import BaseModel

from newshelf.rollout.plan import (
    PHASES,
    Guardrail,
    Plan,
    Promotion,
    ShadowPlan,
    Signal,
    Step,
    SuccessMetric,
)

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "rollout.md").read_text(encoding="utf-8")
PLAN = DOCS.partition("## Plan")[2].partition("\n## ")[0]
PARTS: dict[str, type[BaseModel]] = {
    "": Plan,
    "shadow.": ShadowPlan,
    "ramp[].": Step,
    "promotion.": Promotion,
    "success[].": SuccessMetric,
    "guardrails[].": Guardrail,
    "signals[].": Signal,
}


def documented() -> dict[str, str]:
    table = {}
    for line in PLAN.splitlines():
        if line.startswith("| `"):
            _, names, default, *_ = line.split("|")
            table |= dict.fromkeys(re.findall(r"`([^`]+)`", names), default.strip().strip("`"))
    return table


def test_every_field_of_a_plan_is_documented_and_no_other() -> None:
    fields = {prefix + name for prefix, part in PARTS.items() for name in part.model_fields}
    # A section that is made of documented fields.
    assert set(documented()) == fields - {"promotion"}


def test_defaults_are_told() -> None:
    for prefix, part in PARTS.items():
        for name, field in part.model_fields.items():
            if prefix + name == "promotion":
                continue
            told = documented()[prefix + name]
            if field.is_required() or prefix == "guardrails[].":
                assert told == ""
            elif field.default in (None, (), {}):
                assert told == "none"
            else:
                assert told == str(field.default).lower()


def test_every_phase_is_documented_with_its_sentence() -> None:
    for phase, sentence in PHASES.items():
        assert f"| `{phase}` | {sentence} |" in DOCS
