"""The plan of a rollout: what is compared, in which steps, and what ends it.

``docs/rollout.md`` has every field in a table, ``configs/rollout.yaml`` an example.

Reads a plan from YAML; what is wrong is reported with file, line, field and what is written.

Values are taken as they are written, and the plan says which of them are numbers. YAML's own
types would read 1:30 as 90, yes as true, and the version 1.10 as 1.1.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from newshelf.errors import PlanError

Version = Annotated[str, Field(min_length=1, max_length=64)]
Seconds = Annotated[float, Field(ge=0)]
Level = Annotated[float, Field(ge=1e-9, lt=0.5)]
SuccessName = Literal["ctr", "cvr", "revenue_per_unit", "ndcg", "preference"]
GuardrailName = Literal["error_rate", "p99_ms", "empty_share", "fallback_share"]


Item = TypeVar("Item")


def _some(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # min_length would complain of an empty list as well when an item of it is wrong.
    if not items:
        raise ValueError("give at least one")
    return items


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Timed(_Section):
    min_seconds: Seconds
    """Not left earlier, but by a failure."""
    max_seconds: Seconds
    """Afterwards it is inconclusive, and a person decides."""

    @model_validator(mode="after")
    def _check_times(self) -> "_Timed":
        if self.max_seconds < self.min_seconds:
            raise ValueError(
                f"max_seconds ({self.max_seconds:g}) is below min_seconds ({self.min_seconds:g})"
            )
        return self


class ShadowPlan(_Timed):
    """Before any shopper sees the challenger: it is sent copies, and its answers are compared."""

    min_requests: Annotated[int, Field(ge=1)]
    most_error_share: Annotated[float, Field(ge=0, lt=1)]
    """Of the copies; more rolls back."""
    most_p99_ms: Annotated[float, Field(gt=0)]
    """Surely more rolls back."""
    least_overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Mean share of equal products in the top k; less pauses."""
    most_score_drift: Annotated[float, Field(gt=0)] | None = None
    """Mean difference of scores, in standard deviations of control's; more pauses."""


class Step(_Timed):
    """One step of the ramp."""

    percent: Annotated[float, Field(gt=0, le=50)]
    """Of the units that see the challenger; as many are control."""
    min_units: Annotated[int, Field(ge=1)]
    """In each variant, seen in this step."""


def _going_up(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for number, (before, after) in enumerate(pairwise(steps), start=2):
        if after.percent <= before.percent:
            raise ValueError(
                f"step {number} has {after.percent:g} % after {before.percent:g} %; "
                "steps must go up"
            )
    return steps


class SuccessMetric(_Section):
    """What the challenger must be better at."""

    metric: SuccessName
    direction: Literal["increase", "decrease"] = "increase"
    """Which way is better."""
    minimum_effect: Annotated[float, Field(ge=1e-6, lt=10)]
    """The smallest relative change worth finding (0.1: by a tenth); of ``preference``, how far
    the challenger's share of the clicks is from one half. The intervals are tuned to it."""
    margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """A challenger that is worse by less than this still succeeds (0: it must be better)."""

    @model_validator(mode="after")
    def _check_effect(self) -> "SuccessMetric":
        if self.metric == "preference" and self.minimum_effect > 0.5:  # noqa: PLR2004
            raise ValueError("minimum_effect of preference is at most 0.5: all of the clicks")
        if self.direction == "decrease" and self.minimum_effect >= 1:
            raise ValueError("minimum_effect is below 1 where less is better: nothing is left")
        if self.metric == "preference" and self.direction == "decrease":
            raise ValueError("preference has one direction: increase")
        return self


class Guardrail(_Section):
    """A limit that rolls back. Exactly one of the three says which."""

    metric: GuardrailName
    most: Annotated[float, Field(ge=0)] | None = None
    """The challenger's own: a share, or milliseconds."""
    above_control: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of a share: how far the challenger's may be above control's."""
    times_control: Annotated[float, Field(ge=1)] | None = None
    """Of p99_ms: how many times control's it may be."""

    @property
    def kind(self) -> Literal["most", "above_control", "times_control"]:
        """Which of the three is given."""
        if self.most is not None:
            return "most"
        return "above_control" if self.above_control is not None else "times_control"

    @property
    def limit(self) -> float:
        """Its value."""
        return float(getattr(self, self.kind))

    @model_validator(mode="after")
    def _check_kind(self) -> "Guardrail":
        given = [self.most, self.above_control, self.times_control]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of most, above_control and times_control")
        is_share = self.metric != "p99_ms"
        wrong = "times_control" if is_share else "above_control"
        if self.kind == wrong:
            other = "above_control" if is_share else "times_control"
            raise ValueError(f"{self.metric} has no {wrong}; give most or {other}")
        if is_share and self.limit >= 1:
            raise ValueError(f"{self.metric} is a share: give a limit below 1")
        if not is_share and self.limit == 0:
            raise ValueError("p99_ms of 0 cannot be kept; give milliseconds")
        return self


class Signal(_Section):
    """What only pauses: a person should look."""

    metric: Literal["coverage", "diversity"]
    least_of_control: Annotated[float, Field(gt=0, le=1)]
    """The challenger's, as a share of control's."""
    min_shown: Annotated[int, Field(ge=1)] = 1000
    """Products shown by each variant, before it is looked at."""


class Promotion(_Timed):
    """After the last step: the challenger is made ready to answer everybody."""

    min_seconds: Seconds = 0.0
    max_seconds: Seconds = 900.0


class Plan(_Section):
    """The whole file."""

    control: Version
    """Version of the recommender that is served now."""
    challenger: Version
    """Version that may replace it."""
    shadow: ShadowPlan | None = None
    ramp: Annotated[tuple[Step, ...], AfterValidator(_some), AfterValidator(_going_up)]
    promotion: Promotion = Promotion()
    success: Annotated[tuple[SuccessMetric, ...], AfterValidator(_some)]
    guardrails: Annotated[tuple[Guardrail, ...], AfterValidator(_some)]
    signals: tuple[Signal, ...] = ()
    interleaving: bool = False
    """Units of the challenger's share see both rankings, drafted by teams."""
    alpha: Level = 0.05
    """The probability that an equal challenger is ever called better or worse; shared by the
    success metrics."""
    guardrail_alpha: Level = 0.05
    """The probability that a challenger within all limits is ever rolled back by one, if
    requests are independent of each other; shared by guardrails and steps."""
    cap_quantile: Annotated[float, Field(gt=0.5, le=1)] = 0.999
    """A unit counts for at most as much as this share of the units of both variants has; 1 caps
    nothing."""
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """The probability of finding the minimum effect with the units that are planned for."""
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the units that are in no rollout."""
    overrides: Mapping[str, Literal["control", "challenger"]] = {}
    """Testers' units, which are not counted."""

    @model_validator(mode="after")
    def _check_versions(self) -> "Plan":
        if self.control == self.challenger:
            raise ValueError(f"control and challenger are the same version, {self.control!r}")
        return self

    @model_validator(mode="after")
    def _check_twice(self) -> "Plan":
        named = [
            *(one.metric for one in self.success),
            *(f"{one.metric}.{one.kind}" for one in self.guardrails),
            *(one.metric for one in self.signals),
        ]
        twice = [name for name, times in Counter(named).items() if times > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)} is given twice")
        return self

    @model_validator(mode="after")
    def _check_interleaving(self) -> "Plan":
        by_preference = [one.metric == "preference" for one in self.success]
        if self.interleaving and not all(by_preference):
            raise ValueError(
                "interleaved units see both rankings, so success is the metric preference alone"
            )
        if any(by_preference) and not self.interleaving:
            raise ValueError("success by preference needs interleaving: true")
        return self


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
