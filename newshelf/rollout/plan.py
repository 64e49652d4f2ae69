"""The plan of a rollout and its YAML reader, and the state that is stored between two decisions.

``docs/rollout.md`` has a table of all fields, ``configs/rollout.yaml`` an example. Errors name
file, line, field and value. Values are taken as written and converted by the fields' types: YAML's
own types would read 1:30 as 90, yes as true, and the version 1.10 as 1.1.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from newshelf.errors import PlanError
from newshelf.files import StrictModel, field_path
from newshelf.store.records import TrafficSplit

Version = Annotated[str, Field(min_length=1, max_length=64)]
Seconds = Annotated[float, Field(ge=0)]
Level = Annotated[float, Field(ge=1e-9, lt=0.5)]
SuccessName = Literal["ctr", "cvr", "revenue_per_unit", "ndcg", "preference"]
GuardrailName = Literal["error_rate", "p99_ms", "empty_share", "fallback_share"]


Item = TypeVar("Item")


def _not_empty(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # min_length would also complain of an empty list if an item is invalid.
    if not items:
        raise ValueError("give at least one")
    return items


class _Timed(StrictModel):
    min_seconds: Seconds
    """Minimum duration, except on failure."""
    max_seconds: Seconds
    """Afterwards the phase is inconclusive, and a person decides."""

    @model_validator(mode="after")
    def _check_times(self) -> "_Timed":
        if self.max_seconds < self.min_seconds:
            raise ValueError(
                f"max_seconds ({self.max_seconds:g}) is below min_seconds ({self.min_seconds:g})"
            )
        return self


class ShadowPlan(_Timed):
    """The shadow phase: the challenger gets copies of requests, and its answers are compared."""

    min_requests: Annotated[int, Field(ge=1)]
    most_error_share: Annotated[float, Field(ge=0, lt=1)]
    """Of the copies; a larger share rolls back."""
    most_p99_ms: Annotated[float, Field(gt=0)]
    """Significantly more rolls back."""
    least_overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Mean share of equal products in the top k; less pauses."""
    most_score_drift: Annotated[float, Field(gt=0)] | None = None
    """Mean difference of scores, in standard deviations of control's; more pauses."""


class Step(_Timed):
    """One step of the ramp."""

    percent: Annotated[float, Field(gt=0, le=50)]
    """Of the units that see the challenger; as many are control."""
    min_units: Annotated[int, Field(ge=1)]
    """In each variant, in this step."""

    @property
    def label(self) -> str:
        """The share, for people."""
        return f"{self.percent:g} %"


def _increasing(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for number, (before, after) in enumerate(pairwise(steps), start=2):
        if after.percent <= before.percent:
            raise ValueError(
                f"step {number} has {after.percent:g} % after {before.percent:g} %; "
                "steps must go up"
            )
    return steps


class SuccessMetric(StrictModel):
    """A metric in which the challenger must be better."""

    metric: SuccessName
    direction: Literal["increase", "decrease"] = "increase"
    minimum_effect: Annotated[float, Field(ge=1e-6, lt=10)]
    """Smallest relative change worth detecting (0.1: 10 %); of ``preference``, the distance of the
    challenger's share of clicks from one half. Intervals are tuned to it."""
    margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Non-inferiority margin: a challenger that is worse by less succeeds (0: must be better)."""

    @model_validator(mode="after")
    def _check_effect(self) -> "SuccessMetric":
        if self.metric == "preference" and self.minimum_effect > 0.5:  # noqa: PLR2004
            raise ValueError("minimum_effect of preference is at most 0.5: all of the clicks")
        if self.direction == "decrease" and self.minimum_effect >= 1:
            raise ValueError("minimum_effect is below 1 where less is better: nothing is left")
        if self.metric == "preference" and self.direction == "decrease":
            raise ValueError("preference has one direction: increase")
        return self


class Guardrail(StrictModel):
    """A limit that rolls back; exactly one of the three kinds is given."""

    metric: GuardrailName
    most: Annotated[float, Field(ge=0)] | None = None
    """Maximum of the challenger's own value: a share, or milliseconds."""
    above_control: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Maximum difference of the challenger's share from control's."""
    times_control: Annotated[float, Field(ge=1)] | None = None
    """Maximum p99_ms as a multiple of control's."""

    @property
    def kind(self) -> Literal["most", "above_control", "times_control"]:
        """The kind that is given."""
        if self.most is not None:
            return "most"
        return "above_control" if self.above_control is not None else "times_control"

    @property
    def limit(self) -> float:
        """The value of the given kind."""
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


class Signal(StrictModel):
    """A condition that only pauses: a person should look."""

    metric: Literal["coverage", "diversity"]
    least_of_control: Annotated[float, Field(gt=0, le=1)]
    """Minimum of the challenger's value as a share of control's."""
    min_shown: Annotated[int, Field(ge=1)] = 1000
    """Products shown by each variant before the signal is tested."""


class Promotion(_Timed):
    """The phase after the last step, in which the challenger is prepared for all traffic."""

    min_seconds: Seconds = 0.0
    max_seconds: Seconds = 900.0


class Plan(StrictModel):
    """A plan file."""

    control: Version
    challenger: Version
    shadow: ShadowPlan | None = None
    ramp: Annotated[tuple[Step, ...], AfterValidator(_not_empty), AfterValidator(_increasing)]
    promotion: Promotion = Promotion()
    success: Annotated[tuple[SuccessMetric, ...], AfterValidator(_not_empty)]
    guardrails: Annotated[tuple[Guardrail, ...], AfterValidator(_not_empty)]
    signals: tuple[Signal, ...] = ()
    interleaving: bool = False
    """Units of the challenger's share see both rankings, team-drafted."""
    alpha: Level = 0.05
    """Probability that an equal challenger is ever called better or worse; divided among the
    success metrics."""
    guardrail_alpha: Level = 0.05
    """Probability that a challenger within all limits is ever rolled back by one, if requests are
    independent; divided among guardrails and steps."""
    cap_quantile: Annotated[float, Field(gt=0.5, le=1)] = 0.999
    """Quantile of the units of both variants at which a unit's values are capped; 1 caps
    nothing."""
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """Probability of detecting the minimum effect with the planned units."""
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the units outside all rollouts."""
    overrides: Mapping[str, Literal["control", "challenger"]] = {}
    """Testers' units; they are not counted."""

    @model_validator(mode="after")
    def _check_versions(self) -> "Plan":
        if self.control == self.challenger:
            raise ValueError(f"control and challenger are the same version, {self.control!r}")
        return self

    @model_validator(mode="after")
    def _check_duplicates(self) -> "Plan":
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
    """Read a plan file; ``PlanError`` names file, line, field and reason."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not UTF-8 text: {error}") from error
    return parse_plan(text, str(path))


def parse_plan(text: str, name: str = "plan") -> Plan:
    """Read the YAML of a plan, which messages call ``name``."""
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
                field = field_path(problem["loc"])
                at = self._at(node) + (f"{field}: " if field else "")
                problems.append(at + _reason(problem, written))
        if problems:
            raise PlanError("\n".join(problems))
        return plan

    def _values(self, node: yaml.Node, known: dict[int, object]) -> object:
        """Return strings, lists and mappings; each node once, even with many aliases."""
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
        """Refuse duplicate keys and keys that are no text, which YAML allows."""
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
        """Return the source of a node in one line, shortened."""
        return " ".join(self.text[node.start_mark.index : node.end_mark.index].split())[:80]


def _texts(root: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    """Yield field and node of unquoted versions and units that YAML does not read as text."""
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


def _nearest(node: yaml.Node, place: Place) -> tuple[yaml.Node, bool]:
    """Return the node at a place and True, or the nearest enclosing node and False."""
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


Phase = Literal[
    "draft",
    "shadow",
    "ramp",
    "paused",
    "promoting",
    "promoted",
    "rolling_back",
    "rolled_back",
    "aborted",
]

PHASES: Mapping[Phase, str] = {
    "draft": "Planned; nothing is sent to the challenger.",
    "shadow": "The challenger is sent copies; shoppers are answered by control.",
    "ramp": "A share of the units sees the challenger, and as large a share is control.",
    "paused": "The split stays as it was, until a person resumes, promotes or aborts.",
    "promoting": "The challenger is made ready to answer everybody; the split stays as it was.",
    "promoted": "The challenger answers everybody.",
    "rolling_back": "Control answers everybody again; the challenger finishes what it has begun.",
    "rolled_back": "Control answers everybody again; the reason says why.",
    "aborted": "Control answers everybody; a person ended the rollout.",
}
"""Meaning of each phase."""

RUNNING: tuple[Phase, ...] = ("shadow", "ramp", "paused", "promoting")
"""Phases in which requests are copied or split."""

OVER: tuple[Phase, ...] = ("promoted", "rolled_back", "aborted")
"""Final phases, which only a command ends."""

Resumable = Literal["shadow", "ramp", "promoting"]


class RolloutState(StrictModel):
    """The state of one rollout."""

    rollout: str
    salt: str
    phase: Phase
    step: Annotated[int, Field(ge=0)] = 0
    """Of the plan's ramp, from 0."""
    since: AwareDatetime
    """When phase or step began, or was resumed."""
    reason: str
    revision: Annotated[int, Field(ge=0)] = 0
    """Increased by each change. A change is written with the revision it was made from, so that
    two controllers cannot both act."""
    resumes_to: Resumable | None = None
    raised: tuple[str, ...] = ()
    """Signals that paused a rollout, or metrics that were worse."""
    accepted: tuple[str, ...] = ()
    """Signals and metrics that a person has acknowledged; they do not pause again."""

    @property
    def serving(self) -> Phase:
        """The phase that shoppers see: the interrupted one of a paused rollout."""
        return self.resumes_to or self.phase

    @property
    def label(self) -> str:
        """The phase for people, with the interrupted one."""
        return self.phase if self.resumes_to is None else f"{self.phase} in {self.resumes_to}"


def draft(rollout: str, salt: str, at: datetime) -> RolloutState:
    """Return the state of a new rollout, with a salt of ``assignment.new_salt``."""
    return RolloutState(rollout=rollout, salt=salt, phase="draft", since=at, reason="planned")


def split_of(plan: Plan, state: RolloutState) -> TrafficSplit | None:
    """Return the traffic split in a state; None if one version answers everybody."""
    if state.phase not in RUNNING:
        return None
    shadow = state.serving == "shadow"
    return TrafficSplit(
        rollout=state.rollout,
        salt=state.salt,
        control=plan.control,
        challenger=plan.challenger,
        share=0.0 if shadow else plan.ramp[state.step].percent / 100,
        holdout=plan.holdout,
        shadow=shadow,
        interleave=plan.interleaving and not shadow,
        overrides=plan.overrides,
    )


def served_by(plan: Plan, state: RolloutState) -> str | None:
    """Return the version that answers outside splits from a state on; None changes nothing.

    From a promotion on, gateways name it: a model server's default may be an old version.
    """
    return {"promoting": plan.control, "promoted": plan.challenger}.get(state.phase)
