"""Reads a plan from YAML; what is wrong is reported with file, line, field and what is written.

Values are taken as they are written, and the plan says which of them are numbers. YAML's own
types would read 1:30 as 90, yes as true, and the version 1.10 as 1.1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from newshelf.errors import PlanError
from newshelf.rollout.plan import Plan

__all__ = ["load_plan", "parse_plan"]

Place = Sequence[str | int]
_TEXTS = ("control", "challenger")
_WANTED = {"float": "a number", "int": "a whole number", "bool": "true or false"}


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
        if not isinstance(node, yaml.MappingNode):
            raise PlanError(f"{name} is no plan: write fields such as control and challenger")
        return _Source(text, name).plan(node)
    except yaml.YAMLError as error:
        raise PlanError(f"{name} is not YAML: {error}") from error
    except RecursionError as error:
        raise PlanError(f"{name} is no plan: it is nested too deeply, or in itself") from error


@dataclass(frozen=True)
class _Source:
    """What is written in a file."""

    text: str
    name: str

    def plan(self, root: yaml.MappingNode) -> Plan:
        values = self._values(root, {})
        problems = [
            f"{self._at(node)}{field}: write {self._written(node)} in quotes"
            for field, node in _texts(root)
        ]
        try:
            plan = Plan.model_validate(values)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                node, found = _nearest(root, problem["loc"])
                written = self._written(node) if found else None
                reason = _field(problem["loc"]) + _reason(problem, written)
                problems.append(self._at(node) + reason)
        if problems:
            raise PlanError("\n".join(problems))
        return plan

    def _values(self, node: yaml.Node, known: dict[int, object]) -> object:
        """Texts, lists and mappings; each node once, however often it is referred to."""
        if id(node) in known:
            return known[id(node)]
        if node.tag not in yaml.SafeLoader.yaml_constructors:
            tag = self._written(node)
            raise PlanError(f"{self.name} is no plan: {self._at(node)}{tag} has an unknown tag")
        found: object
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            yaml.SafeLoader("").flatten_mapping(node)
            found = {key.value: self._values(value, known) for key, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            found = [self._values(value, known) for value in node.value]
        else:
            found = None if node.tag == "tag:yaml.org,2002:null" else node.value
        return known.setdefault(id(node), found)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """YAML lets the last of two equal keys win, and lets a list be a key; a plan must not."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable():
                written = self._written(key)
                raise PlanError(f"{self._at(key)}the name of a field is plain text, not {written}")
            if key.value in seen:
                raise PlanError(f"{self._at(key)}{self._written(key)} is given twice")
            seen.add(key.value)

    def _at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}: "

    def _written(self, node: yaml.Node) -> str:
        """As the file has it, in one line, and not at length."""
        return " ".join(self.text[node.start_mark.index : node.end_mark.index].split())[:80]


def _texts(root: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    """Versions and units without quotes that YAML does not take for text, by field."""
    for key, value in root.value:
        nodes = [value] if key.value in _TEXTS else []
        if key.value == "overrides" and isinstance(value, yaml.MappingNode):
            nodes = [unit for unit, _ in value.value]
        for node in nodes:
            if isinstance(node, yaml.ScalarNode) and node.value and not node.tag.endswith(":str"):
                yield key.value, node


def _reason(problem: ErrorDetails, written: str | None) -> str:
    kind, message = problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "missing":
        return "is missing"
    if kind == "value_error" or written is None:
        return message.removeprefix("Value error, ")
    expected = _WANTED.get(kind.removesuffix("_parsing"))
    wanted = f"write {expected}" if expected else message
    return f"{wanted}, not {written or 'nothing'}"


def _field(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{text.removeprefix('.')}: " if text else ""


def _nearest(node: yaml.Node, place: Place) -> tuple[yaml.Node, bool]:
    """What is at a place, or the nearest around it that is there; and which of the two."""
    for part in place:
        values: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            values = node.value[part : part + 1]
        elif isinstance(node, yaml.MappingNode):
            values = [value for key, value in node.value if key.value == part]
        if not values:
            return node, False
        node = values[-1]
    return node, True
