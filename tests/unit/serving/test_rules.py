"""The file of rules: what is read, and how each mistake is reported."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from newshelf.errors import SettingsError
from newshelf.serving.rules import RuleSet, read_rules

GOOD = """\
# Comments and blank lines do not count.

[[rule]]
name = "new in beds"
action = "boost"
weight = 2
placements = ["home", "email"]
from = 2026-06-01T00:00:00+02:00
until = 2026-07-01T00:00:00Z
when.all = [
    {column = "product_type", below = "Home > Beds"},
    {column = "created_at", newer_than_days = 14},
    {not = {column = "brand", in = ["Aurora", "Fjord"]}},
]

[[rule]]
name = "recalled"
action = "hide"
when = {column = "id", is = "lamp-7"}

[[rule]]
name = "winter"
action = "pin"
position = 3
when = {column = "season", is = "winter"}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        read_rules(written(tmp_path, text), {"season": "text", "width": "number"})
    return error.value.message.splitlines()


def test_rules_are_read_and_survive_their_json(tmp_path: Path) -> None:
    found = read_rules(written(tmp_path, GOOD), {"season": "text"})
    boost, hide, pin = found.rules
    assert (boost.action, boost.weight, boost.placements) == ("boost", 2, ("home", "email"))
    assert boost.since == datetime(2026, 5, 31, 22, tzinfo=UTC)
    assert [part.column for _, part in boost.when.parts] == ["product_type", "created_at", None]
    assert boost.when.varies
    assert not hide.when.varies
    assert pin.position == 3
    assert RuleSet.model_validate_json(found.model_dump_json()) == found


def test_a_file_without_rules_changes_nothing(tmp_path: Path) -> None:
    assert read_rules(written(tmp_path, "# later\n")).rules == ()
    assert read_rules(Path("configs/rules.toml")).rules == ()


def test_the_example_is_valid_without_its_comment_marks(tmp_path: Path) -> None:
    lines = Path("configs/rules.toml").read_text().splitlines()
    rules = [line.removeprefix("#") for line in lines[2:]]
    assert len(read_rules(written(tmp_path, "\n".join(rules))).rules) >= 4


def test_rules_apply_at_their_placements_and_times(tmp_path: Path) -> None:
    boost, hide, _ = read_rules(written(tmp_path, GOOD), {"season": "text"}).rules
    start, end = (datetime(2026, *at, tzinfo=UTC).timestamp() for at in ((5, 31, 22), (7, 1)))
    assert [boost.applies("home", now) for now in (start - 1, start, end - 1, end)] == [
        False,
        True,
        True,
        False,
    ]
    assert not boost.applies("cart", start)
    assert not boost.applies(None, start)
    assert hide.applies(None, 0)
    assert hide.applies("cart", end)


RULE = '[[rule]]\nname = "a"\naction = "hide"\n'


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (RULE, 1, "when: Field required"),
        (RULE + 'when = {column = "colour", is = "red"}', 4, "unknown column 'colour'; there is"),
        (RULE + 'when = {column = "price", contains = "1"}', 4, "when.contains: price is a number"),
        (RULE + 'when = {column = "price", is = "1"}', 4, "when.is: price is a number"),
        (RULE + 'when = {column = "brand", in = [1]}', 4, "when.in: brand is a text"),
        (RULE + 'when = {column = "brand", is = true}', 4, "when.is: Input should be a valid"),
        (RULE + 'when = {column = "brand"}', 4, "when: give brand one test"),
        (RULE + 'when = {column = "brand", is = "a", contains = "b"}', 4, "give brand one test"),
        (RULE + 'when = {column = "width", min = 2, max = 1}', 4, "when.max: must not be below"),
        (RULE + 'when = {column = "width", min = nan}', 4, "when.min: Input should be a finite"),
        (RULE + 'when = {column = "created_at", min = 3}', 4, "created_at is a date and has newer"),
        (RULE + 'when = {column = "created_at", newer_than_days = 0}', 4, "when.newer_than_days"),
        (RULE + 'when = {column = "style", contains = "a"}', 4, "style is a label and has is, in"),
        (RULE + 'when = {column = "brand", below = "a"}', 4, "when.below: brand is a text"),
        (RULE + 'when = {is = "a"}', 4, "when: give a column with a test, or one of"),
        (RULE + "when = {all = []}", 4, "when.all: Tuple should have at least 1 item"),
        (RULE + 'when = {column = "id", is = "a", any = []}', 4, "when.any"),
        (
            RULE
            + 'when.any = [\n  {column = "id", is = "a"},\n  {not = {column = "x", is = "b"}},\n]',
            6,
            "when.any[1].not.column: unknown column 'x'",
        ),
        (RULE + '[rule.when]\ncolumn = "size"\nmin = 2', 6, "when.min: size is a text"),
        (RULE + 'weight = 2\nwhen = {column = "id", is = "a"}', 4, "weight: a hide has no weight"),
        (RULE + 'wieght = 2\nwhen = {column = "id", is = "a"}', 4, "wieght: Extra inputs"),
        (RULE + 'until = 2026-01-01\nwhen = {column = "id", is = "a"}', 4, "until: Input should"),
        (
            RULE
            + "from = 2026-01-01T00:00:00Z\nuntil = 2026-01-01T00:00:00Z\n"
            + 'when = {column = "id", is = "a"}',
            5,
            "until: must be after from",
        ),
        ('[[rule]]\nname = "a"\naction = "lift"', 3, "action: Input should be 'boost', 'bury'"),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, told: str
) -> None:
    before = f"# A comment.\n{GOOD}\n"
    (problem,) = problems(tmp_path, before + text)
    line += before.count("\n")
    assert problem.startswith(f'{tmp_path}/rules.toml, line {line}: rule "a": ')
    assert told in problem


def test_every_rule_s_mistake_is_reported(tmp_path: Path) -> None:
    rest = 'when = {column = "id", is = "a"}\n'
    found = problems(
        tmp_path,
        f'[[rule]]\nname = "a"\naction = "boost"\n{rest}'
        f'[[rule]]\nname = "a"\naction = "pin"\n{rest}',
    )
    assert [problem.split(": ", 1)[0].rpartition(" ")[2] for problem in found] == ["3", "7", "6"]
    assert "a boost needs a weight" in found[0]
    assert "a pin needs a position" in found[1]
    assert "another rule has this name" in found[2]


def pin(name: str, further: str) -> str:
    when = 'when = {column = "brand", is = "Aurora"}'
    return f'[[rule]]\nname = "{name}"\naction = "pin"\nposition = 2\n{when}\n{further}\n'


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("", "", True),
        ('placements = ["home"]', "", True),
        ('placements = ["home", "cart"]', 'placements = ["cart"]', True),
        ('placements = ["home"]', 'placements = ["cart"]', False),
        ("until = 2026-02-01T00:00:00Z", "from = 2026-02-01T00:00:00Z", False),
        ("until = 2026-02-02T00:00:00Z", "from = 2026-02-01T00:00:00Z", True),
        ("from = 2026-02-01T00:00:00Z", "until = 2026-02-01T00:00:00Z", False),
    ],
)
def test_a_position_of_a_placement_is_pinned_once_at_a_time(
    tmp_path: Path, first: str, second: str, *, refused: bool
) -> None:
    text = pin("a", first) + pin("b", second)
    if refused:
        (problem,) = problems(tmp_path, text)
        assert "line 10" in problem
        assert "rule 'a' pins it too" in problem
    else:
        assert len(read_rules(written(tmp_path, text)).rules) == 2


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_rules(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match=r"no TOML file.*line 2"):
        read_rules(written(tmp_path, "# ?\nname =\n"))
    with pytest.raises(SettingsError, match="rules: Extra inputs are not permitted"):
        read_rules(written(tmp_path, '[[rules]]\nname = "a"\n'))
