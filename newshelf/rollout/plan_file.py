"""Reads a plan from YAML; what is wrong is told with file, line and field."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from newshelf.errors import PlanError
from newshelf.rollout.plan import Plan

__all__ = ["load_plan", "parse_plan"]

Place = Sequence[str | int]


def load_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: with file, line, field and reason.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not UTF-8 text: {error}") from error
    return parse_plan(text, str(path))


def parse_plan(text: str, name: str = "plan") -> Plan:
    """Read a plan's text.

    Args:
        text: YAML.
        name: what messages call it.

    Raises:
        PlanError: with name, line, field and reason.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_keys(node, name)
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"{name} is not YAML: {error}") from error
    if not isinstance(table, dict):
        raise PlanError(f"{name} is no plan: write fields such as control and challenger")
    try:
        return Plan.model_validate(table)
    except ValidationError as error:
        problems = [
            f"{name}:{_line(node, problem['loc'])}: {_field(problem['loc'])}{_reason(problem)}"
            for problem in error.errors(include_url=False)
        ]
        raise PlanError("\n".join(problems)) from error


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such field"
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        # YAML would read the version 1.10 as 1.1.
        return f"write {problem['input']} in quotes"
    return problem["msg"].removeprefix("Value error, ")


def _field(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{text.removeprefix('.')}: " if text else ""


def _line(node: yaml.Node | None, place: Place) -> int:
    """The line, from 1, of the field or of the nearest thing around it that is there."""
    line = 1
    for part in (*place, None):
        if node is None:
            break
        line = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            found = [value for key, value in node.value if key.value == part]
            node = found[0] if found else None
        else:
            break
    return line


def _check_keys(node: yaml.Node | None, name: str) -> None:
    """YAML lets the last of two equal keys win; a plan must not."""
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, name)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise PlanError(f"{name}:{line}: {key.value} is given twice")
            seen.add(str(key.value))
            _check_keys(value, name)
