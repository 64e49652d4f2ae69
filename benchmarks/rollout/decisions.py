"""Decisions of simulated rollouts in hard conditions; writes docs/benchmarks/rollout.md.

The code that decides real rollouts decides here. The column "before" has the figures of the code
before these faults were fixed.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console

from benchmarks.report import markdown_table
from benchmarks.rollout.latencies import LEVEL, simulate_samples, simulate_shadow
from benchmarks.rollout.mismatch import simulate_mismatches
from benchmarks.rollout.worlds import LOOK, VISITS, WORLDS, Floats, looks, shoppers
from benchmarks.store.writer import click
from newshelf.pipeline.workspace import ROOT
from newshelf.rollout.controller import observe_rollout
from newshelf.rollout.decide import decide, next_state
from newshelf.rollout.metric_results import measure_all
from newshelf.rollout.plan import Plan, RolloutState, load_plan
from newshelf.store.records import (
    ExposedItem,
    Exposure,
    Observation,
    UnitTotals,
    VariantHealth,
)
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

_OUT = ROOT / "docs" / "benchmarks" / "rollout.md"
_EXAMPLE = ROOT / "configs" / "rollout.yaml"
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_SIDES = ("control", "challenger")
Totals = Mapping[str, UnitTotals]


@dataclass(frozen=True)
class DecisionCase:
    """One row of the table."""

    case: str
    right: str
    before: str
    now: str


def run(rollouts: int, console: Console) -> None:
    """Simulate everything and write the page; ``rollouts`` of each A/A row."""
    rows: list[DecisionCase] = []
    for section in (equal, guarded, silent, assigned, unheard, slow, heavy):
        for row in section(rollouts):
            rows.append(row)
            console.print(f"{row.case}: {row.now}", markup=False)
    _OUT.write_text(render(rows, rollouts), encoding="utf-8")


def equal(rollouts: int) -> Iterator[DecisionCase]:
    """Equal versions: how many rollouts ever call them different."""
    for name, (metric, before, _) in WORLDS.items():
        now = _share(called_different(name, rollouts), rollouts)
        yield DecisionCase(
            f"equal versions: {name} ({metric})", "≤ 5 % ever called different", before, now
        )


def called_different(name: str, rollouts: int) -> int:
    """Return how many rollouts in one of ``WORLDS`` decide something at any look."""
    metric, _, world = WORLDS[name]
    plan, false = _plan(metric), 0
    for seed in range(rollouts):
        random = np.random.default_rng(seed)
        false += any(_called(plan, totals) for totals in looks(world(random), random))
    return false


def _called(plan: Plan, totals: Totals) -> bool:
    """Return whether a look calls the variants different, or one suspiciously silent."""
    (one,) = measure_all(plan, _seen(totals, 1000))
    return one.verdict in ("better", "worse") or (one.verdict == "unknown" and bool(one.silence))


def guarded(rollouts: int) -> Iterator[DecisionCase]:
    """Guardrails: they act whatever the success metric is."""
    plan, number = _plan("revenue_per_unit"), max(rollouts // 5, 1)
    ends: Counter[str] = Counter()
    for seed in range(number):
        totals = _both(seed, 500, 0.05, 0.05)
        totals["challenger"].revenue[0] = 1e308
        seen = _seen(totals, 500)
        ill = replace(seen.health["challenger"], errors=250)
        seen = replace(seen, health={**seen.health, "challenger": ill})
        ends[_phase(plan, seen)] += 1
    yield DecisionCase(
        "a purchase of 10³⁰⁸ is reported, half of the challenger's requests fail",
        "rolled back at the first look",
        "`OverflowError` at every look: never",
        _most(ends),
    )


def silent(rollouts: int) -> Iterator[DecisionCase]:
    """Silence: no events in one variant or both, through the steps of the example's plan."""
    example, number = load_plan(_EXAMPLE), max(rollouts // 50, 1)
    ramped = "ramped to half of all shoppers, then waits for 14 days"
    for case, metric, rates, right, before in (
        ("nobody clicks in the challenger", "ctr", (0.05, 0.0), "rolled back in step 1", ramped),
        ("nobody clicks in control", "ctr", (0.0, 0.05), "paused in step 1", ramped),
        ("nobody clicks in either", "ctr", (0.0, 0.0), "paused in step 1", "paused in step 1"),
        ("nobody buys in the challenger", "cvr", (0.05, 0.0), "rolled back in step 1", ramped),
        ("nobody buys in the challenger", "revenue_per_unit", (0.05, 0.0),
         "rolled back in step 1", ramped),
    ):  # fmt: skip
        plan = example.model_copy(update={"success": _plan(metric).success})
        ends = Counter(_ramped(plan, _both(seed, 18_300, *rates)) for seed in range(number))
        yield DecisionCase(f"{case} ({metric})", right, before, _most(ends))
    plan = _plan("preference").model_copy(update={"interleaving": True})
    ends = Counter()
    for seed in range(number):
        clicks = np.random.default_rng(seed).poisson(1.0, 5000).astype(float)
        drafted = {"control": clicks, "challenger": np.zeros(5000)}
        ends[_phase(plan, _seen({}, 5000, drafted=drafted))] += 1
    yield DecisionCase(
        "interleaving, 5,000 shoppers: nobody clicks the challenger's products",
        "rolled back",
        "undecided forever",
        _most(ends),
    )


def assigned(rollouts: int) -> Iterator[DecisionCase]:
    """Sample-ratio mismatch, over whole rollouts."""
    six = "in each variant, 6 stages"
    for case, right, units, returning, lost in (
        (f"sound assignment of 20,000 units {six}; the challenger's come back 10 % more often",
         "≤ 0.1 % rolled back", 20_000, 0.1, 0.0),
        (f"5 % of the challenger's units are lost, of 50,000 {six}",
         "≥ 80 % found", 50_000, 0.0, 0.05),
    ):  # fmt: skip
        found = simulate_mismatches(
            units=units, returning=returning, lost=lost, rollouts=5 * rollouts
        )
        yield DecisionCase(case, right, f"{found.of_stage:.1%}", f"{found.since_began:.2%}")


def slow(rollouts: int) -> Iterator[DecisionCase]:
    """The p99 guardrail, and the shadow's p99."""
    week = simulate_samples(rollouts=rollouts)
    right = f"≤ {LEVEL:.2%} rolled back"
    case = "p99 exactly at its limit, looked at 3,000 times in a week with 600,000 answers"
    yield DecisionCase(case, right, f"{week.before:.2%}", f"{week.now:.2%}")
    shadow = simulate_shadow(relative=0.96, rollouts=rollouts)
    case = "shadow with a p99 of 96 % of its limit, 20,000 copies, looked at 720 times"
    yield DecisionCase(case, right, f"{shadow.before:.1%}", f"{shadow.now:.2%}")


def unheard(_rollouts: int) -> Iterator[DecisionCase]:
    """Missing feedback: at 1 %, only users outside the comparison send any."""
    plan = _plan("ctr").model_copy(update={"ramp": load_plan(_EXAMPLE).ramp})
    began = _AT - timedelta(seconds=plan.ramp[0].min_seconds + 1)
    with TemporaryDirectory() as folder, EventStore.open(f"sqlite:///{folder}/events.db") as store:
        answers = [_answer(number, began) for number in range(40_000)]
        clicks = [click(one) for one in answers if one.variant == "default"]
        for start in range(0, len(answers), 1000):
            store.write(WriteBatch(exposures=answers[start : start + 1000]))
            store.write(WriteBatch(feedback=clicks[start : start + 1000]))
        state = _ramp(0).model_copy(update={"since": began})
        started_s = time.perf_counter()
        seen = observe_rollout(
            store, plan, state, now=_AT, before_window_s=86400.0, versions_ready=True
        )
        took_s = time.perf_counter() - started_s
        phase = decide(plan, state, seen).phase
    yield DecisionCase(
        "feedback of the 98 % who are not compared, of 40,000 answers, and of nobody else",
        "paused",
        "goes on (in the ramp); the look takes 0.56 s",
        f"{phase}; the look takes {took_s:.2f} s",
    )


def _answer(number: int, began: datetime) -> Exposure:
    variant = {0: "control", 1: "challenger"}.get(number % 100, "default")
    items = tuple(
        ExposedItem(item_id=f"item-{place}", position=place, score=1, source="model", propensity=1)
        for place in range(1, 11)
    )
    return Exposure(
        request_id=f"request-{number}",
        unit=f"unit-{number}",
        at=began + timedelta(milliseconds=number),
        rollout="r",
        variant=variant,
        model_version="1.0",
        index_version="1",
        latency_ms=20.0,
        items=items,
    )


def heavy(rollouts: int) -> Iterator[DecisionCase]:
    """Outliers: one unit hides neither an improvement nor a harm."""
    number = max(rollouts // 5, 1)
    ends: Counter[str] = Counter()
    intervals = []
    for seed in range(number):
        totals = _both(seed, 2000, 0.05, 0.062)
        robot = totals["challenger"]
        robot.requests[0], robot.shown[0], robot.clicks[0] = 120_000, 1_200_000, 0
        ends[_phase(_plan("ctr"), _seen(totals, 2000))] += 1
        (one,) = measure_all(_plan("ctr"), _seen(totals, 2000))
        intervals.append((one.effect, one.low, one.high))
    effect, low, high = np.median(intervals, axis=0)
    yield DecisionCase(
        "+24 % clicks, and a monitor with 120,000 answers in the challenger",
        "promoting",
        "undecided forever: −88.7 % (−100 % to +7.9·10²⁸ %)",
        f"{_most(ends)}: {effect:+.1%} ({low:+.1%} to {high:+.1%})",
    )
    ends = Counter()
    for seed in range(number):
        totals = _both(seed, 12_000, 0.05, 0.034)
        spent = totals["challenger"].revenue
        spent[np.flatnonzero(spent)[0]] *= 10_000
        ends[_phase(_plan("revenue_per_unit"), _seen(totals, 12_000))] += 1
    yield DecisionCase(
        "−32 % revenue, and one order that is 10,000 times too large in the challenger",
        "rolled back",
        "undecided forever",
        _most(ends),
    )


def _plan(metric: str) -> Plan:
    return Plan.model_validate(
        {
            "control": "1.0",
            "challenger": "1.1",
            "ramp": [{"percent": 50, "min_seconds": 60, "max_seconds": 6000, "min_units": 200}],
            "success": [{"metric": metric, "minimum_effect": 0.1}],
            "guardrails": [{"metric": "error_rate", "most": 0.02}],
            "interleaving": metric == "preference",
        }
    )


def _both(seed: int, units: int, control: float, challenger: float) -> dict[str, UnitTotals]:
    random = np.random.default_rng(seed)
    rates = {"control": control, "challenger": challenger}
    return {side: shoppers(random, units, rate) for side, rate in rates.items()}


def _seen(
    totals: Totals, units: int, seconds: float = 1e3, drafted: Mapping[str, Floats] | None = None
) -> Observation:
    health = VariantHealth(
        requests=units,
        errors=0,
        fallbacks=0,
        empty=0,
        latencies_ms=np.full(1000, 20.0),
        items={f"item-{number}": 1000 for number in range(50)},
        units=units,
    )
    return Observation(
        seconds_in_step=seconds,
        totals=totals,
        health=dict.fromkeys((*_SIDES, "interleaved"), health),
        double_exposed=0,
        shadow={},
        versions_ready=True,
        credits=drafted or {},
    )


def _ramp(step: int) -> RolloutState:
    return RolloutState(rollout="r", salt="s", phase="ramp", step=step, since=_AT, reason="started")


def _phase(plan: Plan, seen: Observation) -> str:
    """Return the phase after one look in the last step."""
    return decide(plan, _ramp(len(plan.ramp) - 1), seen).phase.replace(
        "rolling_back", "rolled back"
    )


def _ramped(plan: Plan, sides: Totals) -> str:
    """Return where a rollout ends whose units come one by one, with a look every ``LOOK``."""
    state, begun = _ramp(0), 0
    for units in range(LOOK // 2, len(sides["control"]) + 1, LOOK // 2):
        step = plan.ramp[state.step]
        is_full = units - begun >= step.min_units
        seen = _seen(
            {side: _first(totals, units) for side, totals in sides.items()},
            units - begun,
            seconds=step.min_seconds + 1 if is_full else 0.0,
        )
        after = next_state(state, decide(plan, state, seen), _AT)
        begun = units if after.step != state.step else begun
        state = after
        if state.phase != "ramp":
            break
    phase = state.phase.replace("rolling_back", "rolled back")
    return f"{phase} in step {state.step + 1}"


def _first(totals: UnitTotals, units: int) -> UnitTotals:
    names = ("requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests")
    return UnitTotals(**{name: getattr(totals, name)[:units] for name in names}, before={})


def _share(number: int, of: int) -> str:
    return f"{number / of:.2%}"


def _most(ends: Counter[str]) -> str:
    """Return the ends, the most frequent first, with shares if there are several."""
    total = ends.total()
    if len(ends) == 1:
        return next(iter(ends))
    return ", ".join(f"{end} {_share(number, total)}" for end, number in ends.most_common())


def render(rows: Sequence[DecisionCase], rollouts: int) -> str:
    """Return the page in Markdown."""
    cells = [(row.case, row.right, row.before, row.now) for row in rows]
    lines = [
        "# Decisions of rollouts",
        "",
        "What a rollout decides in hard conditions, by simulation. `before` is the code before "
        "these faults were fixed.",
        "",
        "```bash",
        f"./run bench rollout --rollouts {rollouts}",
        "```",
        "",
        f"Equal versions: {rollouts:,} rollouts of {VISITS:,} visits each, looked at after every "
        f"{LOOK}, at alpha = 5 %; `benchmarks/rollout/worlds.py` says what the shops are like. "
        "A rollout counts that calls the versions different, or one of them suspiciously silent, "
        "at any look. (Before: 300 rollouts.)",
        "",
        markdown_table(("case", "right", "before", "now"), "llll", cells),
        "",
    ]
    return "\n".join(lines)
