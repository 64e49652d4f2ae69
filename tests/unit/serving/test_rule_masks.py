"""Which products rules match, and what boost, bury, pin and hide do with positions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.attributes.lexicon import Lexicon
from newshelf.serving import rule_masks
from newshelf.serving.columns import TextColumn
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable, KnownValues, TextReader
from newshelf.serving.rule_masks import ActiveRules, CompiledRules, matches
from newshelf.serving.rules import Condition, RuleSet

HOUR_S, DAY_S = 3_600, 86_400
NOW_S = 1_780_000_000 // HOUR_S * HOUR_S

Row = Mapping[str, Any]


def rules_of(*rules: Mapping[str, Any]) -> RuleSet:
    named = [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)]
    return RuleSet.model_validate({"rule": named})


def table_of(rows: Sequence[Row]) -> ItemTable:
    """Columns of rows; ``style`` is what is inferred."""
    further = [name for row in rows for name in row if name not in (*INDEX_COLUMNS, "style")]
    columns: dict[str, list[Any]] = {
        name: [row.get(name) for row in rows] for name in (*INDEX_COLUMNS, *dict.fromkeys(further))
    }
    columns["id"] = [row.get("id", f"p{at}") for at, row in enumerate(rows)]
    columns["popularity"] = [row.get("popularity", 0.0) for row in rows]
    known = [(at, "style", row["style"], 0.9) for at, row in enumerate(rows) if row.get("style")]
    table = ItemTable.from_columns(
        columns, KnownValues.from_rows(known, TextReader(Lexicon(()), 0.5))
    )
    # By themselves, the cells could all be numbers.
    seasons = {"season": TextColumn.of(columns["season"])} if "season" in columns else {}
    return replace(table, extras={**table.extras, **seasons})


TEXTS = ["Aurora", "aurora ", "Fjord", "red/white", "White", "A > B", "a >b > C", "Ab", "7", "07"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            **{
                name: st.none() | st.sampled_from(TEXTS)
                for name in ("title", "product_type", "brand", "color", "material", "size")
            },
            "style": st.sampled_from(["minimal", "white"]),
            "availability": st.sampled_from([None, "in_stock", "out_of_stock", "preorder"]),
            "price": st.none() | st.sampled_from([0.0, 5.0, 7.0, 9.5]),
            "created_at": st.none() | st.integers(0, 40).map(lambda age: NOW_S - age * DAY_S),
            "popularity": st.sampled_from([0.0, 3.0]),
            "season": st.none() | st.sampled_from(TEXTS),
            "width": st.none() | st.sampled_from([1, 2.5, "7"]),
        },
    ),
    min_size=1,
    max_size=12,
)
NUMBERS = st.sampled_from([0, 3, 5.0, 7, 9.5])
TEXT_COLUMNS = ("title", "product_type", "brand", "color", "material", "size", "season", "id")


def one_test(columns: Sequence[str], test: str, values: st.SearchStrategy[Any]) -> Any:
    return st.fixed_dictionaries({"column": st.sampled_from(columns), test: values})


LEAVES = st.one_of(
    one_test((*TEXT_COLUMNS, "style", "availability"), "is", st.sampled_from([*TEXTS, "minimal"])),
    one_test(TEXT_COLUMNS, "in", st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)),
    one_test(TEXT_COLUMNS, "contains", st.sampled_from(["A", "r", ">", "zz"])),
    one_test(["product_type"], "below", st.sampled_from(["A", "a > b", "B"])),
    one_test(["price", "popularity", "width"], "is", NUMBERS),
    one_test(["price", "width"], "in", st.lists(NUMBERS, min_size=1, max_size=3)),
    one_test(["price", "popularity", "width"], "min", NUMBERS),
    one_test(["price", "popularity", "width"], "max", NUMBERS),
    one_test(["created_at"], "newer_than_days", st.integers(1, 30)),
    one_test(["created_at"], "older_than_days", st.integers(1, 30)),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)


def passes(test: Mapping[str, Any], row: Row, item: str) -> bool:  # noqa: PLR0911 - by test
    """The same, by row, in plain Python."""
    match test:
        case {"all": parts}:
            return all(passes(part, row, item) for part in parts)
        case {"any": parts}:
            return any(passes(part, row, item) for part in parts)
        case {"not": part}:
            return not passes(part, row, item)
    column = test["column"]
    cell = item if column == "id" else row.get(column, 0.0 if column == "popularity" else None)
    if column == "created_at":
        age = None if cell is None else NOW_S - cell
        if "newer_than_days" in test:
            return age is not None and age < test["newer_than_days"] * DAY_S
        return age is not None and age >= test["older_than_days"] * DAY_S
    wanted = test.get("in", [test["is"]] if "is" in test else None)
    if column in {"price", "popularity", "width"}:
        return cell is not None and (
            float(cell) in wanted
            if wanted
            else test.get("min", -1) <= float(cell) <= test.get("max", 99)
        )
    if "contains" in test:
        return cell is not None and test["contains"].lower() in cell.lower()
    if "below" in test:
        path = levels(test["below"])
        return cell is not None and levels(cell)[: len(path)] == path
    if column == "availability":
        return (cell or "in_stock") in wanted
    stated = {cell.strip().lower()} if cell else set()
    if column in {"color", "material"} and cell:
        stated |= {part.strip() for part in cell.lower().split("/")}
    if column == "product_type":
        return cell is not None and levels(cell) in map(levels, wanted)
    if column == "id":
        return cell in wanted
    return not stated.isdisjoint(one.strip().lower() for one in wanted)


def levels(path: str) -> list[str]:
    return [level.strip().lower() for level in path.split(">")]


@settings(max_examples=400, deadline=None)
@given(ROWS, CONDITIONS)
def test_conditions_match_the_rows_that_plain_python_finds(
    rows: list[Row], test: dict[str, Any]
) -> None:
    table = table_of(rows)
    found = matches(Condition.model_validate(test), table, NOW_S, {})
    assert found.tolist() == [passes(test, row, f"p{at}") for at, row in enumerate(rows)]


def test_a_test_of_another_type_than_the_column_s_matches_nothing() -> None:
    table = table_of([{"width": 7, "season": "7"}])
    tests = [{"column": "width", "is": "7"}, {"column": "width", "contains": "7"}]
    tests += [{"column": "season", "is": 7.0}, {"column": "season", "min": 7.0}]
    for test in tests:
        assert not matches(Condition.model_validate(test), table, 0, {}).any()


def test_a_column_that_an_index_lacks_matches_nothing() -> None:
    condition = Condition.model_validate({"column": "season", "is": "winter"})
    assert not matches(condition, table_of([{}, {}]), 0, {}).any()


BRANDS = [{"brand": "Aurora"}, {"brand": "Fjord"}, {"brand": "Aurora"}, {"brand": None}]
AURORA = {"column": "brand", "is": "Aurora"}
FJORD = {"column": "brand", "is": "Fjord"}


def choices(active: ActiveRules, answered: Sequence[int] = (), k: int = 9) -> list[Any]:
    found = active.pinned(answered, np.ones(99, dtype=np.bool_), k)
    return [(place, rule, list(positions)) for place, rule, positions in found]


def test_positions_run_over_all_parts_and_products_brought_along() -> None:
    rules = rules_of(
        {"action": "hide", "when": AURORA},
        {"action": "pin", "position": 2, "when": FJORD},
        {"action": "boost", "weight": 3, "when": FJORD},
        *({"action": "hide", "when": {"column": "id", "is": f"none{at}"}} for at in range(7)),
        {"action": "hide", "when": {"column": "id", "is": "q"}},
    )
    compiled = CompiledRules(rules, [table_of(BRANDS), table_of([*BRANDS, {"id": "q"}])])
    active = compiled.active(None, NOW_S)
    assert active.hidden.tolist() == [0, 2, 4, 6, 8]
    assert active.hides(np.array([8, 1, 0, 7])).tolist() == [True, False, True, False]
    assert choices(active) == [(1, "r1", [1, 5])]
    assert choices(active, answered=[5, 4]) == [(1, "r1", [5, 1, 5])]
    assert choices(active, k=1) == []
    assert active.names([3, 5]) == [[], ["r2"]]
    with_inline = active.with_inline(table_of([{"brand": "Fjord"}, {"brand": "Aurora"}]))
    assert with_inline.hidden.tolist() == [0, 2, 4, 6, 8, 10]
    assert choices(with_inline) == [(1, "r1", [1, 5, 9])]
    assert active.hidden.tolist() == [0, 2, 4, 6, 8]


def test_a_rule_applies_at_its_placements_and_times_alone() -> None:
    day = [datetime.fromtimestamp(NOW_S + days * DAY_S, UTC) for days in (0, 1)]
    rules = rules_of(
        {"action": "hide", "when": AURORA, "placements": ["home"], "from": day[0], "until": day[1]}
    )
    compiled = CompiledRules(rules, [table_of(BRANDS)])
    assert compiled.active("cart", NOW_S) is None
    assert compiled.active(None, NOW_S) is None
    assert compiled.active("home", NOW_S - 0.001) is None
    assert compiled.active("home", NOW_S).hidden.tolist() == [0, 2]
    assert compiled.active("home", NOW_S + DAY_S) is None


def test_ages_and_popularity_are_compared_once_an_hour() -> None:
    table = table_of([{"created_at": NOW_S - DAY_S + HOUR_S}, {"popularity": 5.0}, {}])
    rules = rules_of(
        {"action": "hide", "when": {"column": "created_at", "newer_than_days": 1}},
        {"action": "hide", "when": {"column": "popularity", "min": 5}},
    )
    compiled = CompiledRules(rules, [table])
    assert compiled.active(None, NOW_S + HOUR_S - 1).hidden.tolist() == [0, 1]
    grown = table.with_popularity(np.array([0.0, 1.0, 9.0]))
    compiled = CompiledRules(rules, [grown], compiled)
    assert compiled.active(None, NOW_S + HOUR_S).hidden.tolist() == [2]
    assert compiled.active(None, NOW_S).hidden.tolist() == [0, 2]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows of each comparison from now on."""
    calls: list[int] = []
    tested = rule_masks._tested
    monkeypatch.setattr(
        rule_masks, "_tested", lambda *args: calls.append(len(args[2])) or tested(*args)
    )
    return calls


def test_each_part_is_compared_once_and_no_request_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = rules_of(
        {"action": "hide", "when": {"any": [AURORA, FJORD]}},
        {"action": "boost", "weight": 2, "when": {"column": "price", "min": 3}},
        {"action": "pin", "position": 1, "when": {"column": "created_at", "newer_than_days": 3}},
        {
            "action": "bury",
            "weight": 2,
            "when": {"all": [FJORD, {"column": "created_at", "older_than_days": 3}]},
        },
    )
    base = table_of([{"brand": "Aurora", "price": float(at % 7)} for at in range(100_000)])
    calls = counted(monkeypatch)
    compiled = CompiledRules(rules, [base])
    assert sum(calls) == 6 * len(base)
    calls.clear()
    for placement in ("home", None, "cart"):
        active = compiled.active(placement, rule_masks.time.time())
        active.places(np.zeros(50), np.arange(50))
        active.hides(np.arange(50))
        active.names([1, 2, 3])
    assert not calls
    segment = table_of(BRANDS)
    compiled = CompiledRules(rules, [base, segment], compiled)
    compiled.active(None, rule_masks.time.time())
    assert sum(calls) == 6 * len(segment)
    calls.clear()
    compiled.active(None, rule_masks.time.time() + HOUR_S)
    # Texts are not compared again: of the varying rules, only the ages.
    assert sum(calls) == 2 * (len(base) + len(segment))
    calls.clear()
    CompiledRules(RuleSet(), [base, segment], compiled)
    assert not calls


SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.9]), min_size=1, max_size=9)


@given(SCORES, st.data())
def test_boosts_and_buries_divide_and_multiply_the_rank(
    scores: list[float], data: st.DataObject
) -> None:
    brands = st.sampled_from(["Aurora", "Fjord", "Both", None])
    chosen = data.draw(st.lists(brands, min_size=len(scores), max_size=len(scores)))
    rules = rules_of(
        {"action": "boost", "weight": 3, "when": {"column": "brand", "in": ["Aurora", "Both"]}},
        {"action": "bury", "weight": 2, "when": {"column": "brand", "in": ["Fjord", "Both"]}},
    )
    active = CompiledRules(rules, [table_of([{"brand": one} for one in chosen])]).active(None, 0)
    places = active.places(np.array(scores), np.arange(len(scores)))
    if not any(chosen):
        assert places is None
        return
    ranked = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    factor = {"Aurora": 1 / 3, "Fjord": 2, "Both": 2 / 3, None: 1}
    key = {
        at: (round(rank * factor[chosen[at]], 9), factor[chosen[at]], rank)
        for rank, at in enumerate(ranked, 1)
    }
    assert np.argsort(places).tolist() == sorted(ranked, key=key.__getitem__)


def test_the_scale_of_the_scores_does_not_matter() -> None:
    rules = rules_of({"action": "boost", "weight": 4, "when": FJORD})
    active = CompiledRules(rules, [table_of([{"brand": "A"}] * 7 + BRANDS)]).active(None, 0)
    scores = np.linspace(0.9, 0.1, 11)
    orders = [active.places(values, np.arange(11)) for values in (scores, scores * 1e-6, 9**scores)]
    assert all(one.tolist() == orders[0].tolist() for one in orders)
    # Rank 9 by 4 is between ranks 2 and 3.
    assert orders[0][8] == 2
