"""Rules of the shop: boost, bury, pin or hide the products that a condition matches.

The file is TOML (docs/rules.md). The shelf process reads it with ``read_rules`` and publishes it as
JSON; workers compile it (``newshelf.serving.rule_masks``).
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, ConfigDict, Field, StrictFloat, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from newshelf.errors import SettingsError
from newshelf.files import StrictModel, field_path

ColumnKind = Literal["text", "category", "label", "number", "date"]
COLUMNS: Mapping[str, ColumnKind] = {
    "id": "text",
    "title": "text",
    "product_type": "category",
    "brand": "text",
    "color": "text",
    "material": "text",
    "style": "label",
    "size": "text",
    "availability": "text",
    "price": "number",
    "popularity": "number",
    "created_at": "date",
}
"""Columns that every index has; ``style`` is inferred from the texts."""

_Scalar = StrictStr | StrictFloat
_Days = Annotated[float, Field(gt=0)]
_TESTS: Mapping[str, tuple[ColumnKind, ...]] = {
    "is": ("text", "category", "label", "number"),
    "in": ("text", "category", "label", "number"),
    "contains": ("text", "category"),
    "below": ("category",),
    "min": ("number",),
    "max": ("number",),
    "newer_than_days": ("date",),
    "older_than_days": ("date",),
}
"""Test → kinds of columns that have it."""
_SCALARS = ("str", "float")
"""Forms of ``_Scalar`` in pydantic's paths."""


class Condition(StrictModel):
    """One test of a column, or a combination of conditions."""

    model_config = ConfigDict(serialize_by_alias=True)

    column: str | None = None
    equals: _Scalar | None = Field(None, alias="is")
    """Text in any case. ``brand``, ``color``, ``material`` and ``style`` match as filters do."""
    among: Annotated[tuple[_Scalar, ...], Field(min_length=1)] | None = Field(None, alias="in")
    contains: StrictStr | None = None
    """Part of the text, in any case."""
    below: StrictStr | None = None
    """A category path such as ``Home > Beds``, itself included."""
    min: float | None = None
    max: float | None = None
    newer_than_days: _Days | None = None
    older_than_days: _Days | None = None
    every: Annotated[tuple["Condition", ...], Field(min_length=1)] | None = Field(None, alias="all")
    some: Annotated[tuple["Condition", ...], Field(min_length=1)] | None = Field(None, alias="any")
    negated: "Condition | None" = Field(None, alias="not")

    @property
    def wanted(self) -> Sequence[str | float]:
        """The values of ``is`` or ``in``."""
        return self.among or (() if self.equals is None else (self.equals,))

    @property
    def parts(self) -> Sequence[tuple[str, "Condition"]]:
        """The combined conditions, each with its place in the file."""
        listed = [("all", self.every or ()), ("any", self.some or ())]
        found = [(f"{name}[{at}]", one) for name, many in listed for at, one in enumerate(many)]
        return found if self.negated is None else [*found, ("not", self.negated)]

    @property
    def varies(self) -> bool:
        """True if time or interactions change what it matches."""
        varies = self.column in {"created_at", "popularity"}
        return varies or any(part.varies for _, part in self.parts)


class Rule(StrictModel):
    """A change to answers, for the products that a condition matches."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    action: Literal["boost", "bury", "pin", "hide"]
    when: Condition
    weight: Annotated[float, Field(gt=1, le=100)] | None = None
    """Of ``boost`` and ``bury``: divides or multiplies a product's rank."""
    position: Annotated[int, Field(ge=1)] | None = None
    """Of ``pin``, from 1."""
    placements: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """None: all, and requests without a placement."""
    since: AwareDatetime | None = Field(None, alias="from")
    until: AwareDatetime | None = None
    """Itself not included."""

    def applies(self, placement: str | None, now_s: float) -> bool:
        """Return True for a placement and time that the rule is for."""
        return (
            (self.placements is None or placement in self.placements)
            and (self.since is None or self.since.timestamp() <= now_s)
            and (self.until is None or now_s < self.until.timestamp())
        )


class RuleSet(StrictModel):
    """All rules, in the order of the file."""

    model_config = ConfigDict(serialize_by_alias=True)

    rules: tuple[Rule, ...] = Field((), alias="rule")


def read_rules(path: Path, further: Mapping[str, ColumnKind] | None = None) -> RuleSet:
    """Read and check a TOML file of rules; ``SettingsError`` names file, line, rule and field."""
    try:
        text = path.read_text(encoding="utf-8")
        found = RuleSet.model_validate(tomllib.loads(text))
    except OSError as error:
        raise SettingsError(f"the rules {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise SettingsError(f"{path} is no TOML file: {error}") from error
        invalid = map(_invalid, error.errors(include_url=False))
        # Of one rule the first: an invalid part makes the whole invalid too.
        problems = [*{one.rule: one for one in reversed([*invalid])}.values()][::-1]
    else:
        problems = [*_problems(found.rules, {**COLUMNS, **(further or {})})]
    if problems:
        raise SettingsError("\n".join(_described(path, text, one) for one in problems))
    return found


class _Problem(NamedTuple):
    rule: int | None
    """Its index; None for the whole file."""
    field: str
    """Path within the rule, such as ``when.any[1].column``."""
    message: str
    value: str = ""
    """Text of the line that is to blame, next to the field's name."""


def _described(path: Path, text: str, problem: _Problem) -> str:
    if problem.rule is None:
        return f"{path}: {problem.field}: {problem.message}"
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if _HEADER.match(line)]
    start, end = [*starts, len(lines)][problem.rule : problem.rule + 2]
    block = lines[start:end]
    key = re.escape(problem.field.rpartition(".")[2].partition("[")[0])
    named = [at for at, line in enumerate(block) if re.search(rf"\b{key}\b.*=", line)]
    close = [at for at in named if problem.value in block[at]] or named
    name = next((match[1] for line in block if (match := _NAME.match(line))), problem.rule + 1)
    line = start + (close[0] if close else 0) + 1
    return f"{path}, line {line}: rule {name}: {problem.field}: {problem.message}"


_HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")
_NAME = re.compile(r"\s*name\s*=\s*(.+)")


def _invalid(error: ErrorDetails) -> _Problem:
    place = [*error["loc"]]
    rule = place[1] if place[:1] == ["rule"] and len(place) > 1 else None
    within = place if rule is None else place[2:]
    field = field_path([part for part in within if part not in _SCALARS])
    return _Problem(rule if isinstance(rule, int) else None, field, error["msg"])


def _problems(rules: Sequence[Rule], columns: Mapping[str, ColumnKind]) -> Iterator[_Problem]:
    for at, rule in enumerate(rules):
        for field, actions in (("weight", ("boost", "bury")), ("position", ("pin",))):
            if rule.action in actions and getattr(rule, field) is None:
                yield _Problem(at, "action", f"a {rule.action} needs a {field}", rule.action)
            if rule.action not in actions and getattr(rule, field) is not None:
                yield _Problem(at, field, f"a {rule.action} has no {field}")
        if rule.since is not None and rule.until is not None and rule.until <= rule.since:
            yield _Problem(at, "until", "must be after from")
        for other in rules[:at]:
            if rule.name == other.name:
                yield _Problem(at, "name", "another rule has this name")
            if _collide(rule, other):
                told = f"rule {other.name!r} pins it too, on a common placement at a common time"
                yield _Problem(at, "position", told)
        for field, message, value in _condition_problems(rule.when, "when", columns):
            yield _Problem(at, field, message, value)


def _collide(rule: Rule, other: Rule) -> bool:
    return (
        rule.action == other.action == "pin"
        and rule.position == other.position
        and (
            rule.placements is None
            or other.placements is None
            or not {*rule.placements}.isdisjoint(other.placements)
        )
        and (rule.until is None or other.since is None or other.since < rule.until)
        and (other.until is None or rule.since is None or rule.since < other.until)
    )


def _condition_problems(
    condition: Condition, at: str, columns: Mapping[str, ColumnKind]
) -> Iterator[tuple[str, str, str]]:
    """Yield path, message, and the text to blame."""
    given = condition.model_dump(exclude_none=True)
    tests = [name for name in given if name in _TESTS]
    forms = [name for name in ("column", "all", "any", "not") if name in given]
    if len(forms) != 1 or (tests and forms != ["column"]):
        yield at, "give a column with a test, or one of all, any and not", ""
        return
    for place, part in condition.parts:
        yield from _condition_problems(part, f"{at}.{place}", columns)
    column = condition.column
    if column is None:
        return
    if column not in columns:
        yield f"{at}.column", f"unknown column {column!r}; there is {', '.join(columns)}", column
        return
    kind = columns[column]
    able = [test for test, kinds in _TESTS.items() if kind in kinds]
    if len(tests) != 1 and {*tests} != {"min", "max"}:
        yield at, f"give {column} one test ({', '.join(able)}), or min and max", column
    for test in tests:
        if test not in able:
            yield f"{at}.{test}", f"{column} is a {kind} and has {', '.join(able)}", column
        elif any(isinstance(one, str) != (kind != "number") for one in condition.wanted):
            yield f"{at}.{test}", f"{column} is a {kind}, and this is none", column
    if condition.min is not None and condition.max is not None and condition.max < condition.min:
        yield f"{at}.max", "must not be below min", column
