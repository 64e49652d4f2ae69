"""The controller: looks at a rollout, decides, and lets TorchServe follow.

What is to be is written down, and what is follows at every look. A controller that is killed
anywhere leaves a written state, and whoever comes next goes on from it. One lease per rollout
lets one controller act, and a change is only written while the lease is held and nobody has
changed the rollout meanwhile.

Makes TorchServe follow a rollout, and only while the lease is held.

Each step may be done again: what is so already is left as it is.

Gathers what a decision looks at.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from sqlalchemy.engine import Connection

from newshelf.errors import NewshelfError, RolloutError, ServerError, Unavailable
from newshelf.rollout.decide import decide, next_state, pause
from newshelf.rollout.guardrails import level_of, lowest_p99
from newshelf.rollout.history import Snapshot, snapshot_of
from newshelf.rollout.operations import command
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import OVER, RolloutState, split_of
from newshelf.rollout.versions import ModelVersions, PromotedFile
from newshelf.store.aggregates import (
    summarise_shadow,
    team_credits,
    unit_totals,
    variant_health,
)
from newshelf.store.records import Observation, UnitTotals
from newshelf.store.rollouts import RolloutRow
from newshelf.store.store import EventStore

_WARM_UP_REQUESTS = 20


@dataclass(frozen=True)
class FinalVersions:
    """Which version answers everybody when a rollout ends as it stands, and which none."""

    winner: str
    loser: str


def versions_of(plan: Plan, state: RolloutState) -> FinalVersions:
    """The challenger wins by being promoted, and control otherwise."""
    if state.phase == "promoted":
        return FinalVersions(plan.challenger, plan.control)
    return FinalVersions(plan.control, plan.challenger)


class VersionActions:
    """The hands of one controller, for one rollout.

    Every method may raise ``ServerError`` when TorchServe does not do it, ``RolloutError`` when
    an archive is gone, and what ``hold`` raises.

    Args:
        versions: the model server.
        promoted: what the next start serves.
        hold: prolongs the lease; raises when another controller has it.
    """

    def __init__(
        self, versions: ModelVersions, promoted: PromotedFile, hold: Callable[[], None]
    ) -> None:
        self._versions = versions
        self._promoted = promoted
        self._hold = hold

    def prepare(self, plan: Plan) -> str | None:
        """Load the challenger, warm it up and check it. Returns what is still missing."""
        self._load(plan.challenger)
        return self._versions.obstacle(plan.challenger, requests=_WARM_UP_REQUESTS)

    def keep_running(self, plan: Plan, state: RolloutState) -> str | None:
        """Load what is missing, as after a restart, and ask both versions.

        Returns:
            Why they are not ready; None when both answer.
        """
        for version in (plan.control, plan.challenger):
            self._load(version)
        if state.phase != "promoting":
            # A promotion may have been broken off after the default was changed.
            self._answer_by_control(plan, state)
        requests = _WARM_UP_REQUESTS if state.phase == "promoting" else 1
        return self._versions.obstacle(plan.control) or self._versions.obstacle(
            plan.challenger, requests=requests
        )

    def promote(self, plan: Plan, state: RolloutState) -> None:
        """Let the challenger answer what names no version, now and after a restart."""
        self._set_default(plan.challenger)
        self._hold()
        self._promoted.promote(plan.challenger, state.rollout, plan.control)

    def go_back(self, plan: Plan, state: RolloutState) -> str | None:
        """The same for control, once it answers. Returns what is still missing."""
        self._load(plan.control)
        if obstacle := self._versions.obstacle(plan.control):
            return obstacle
        self._answer_by_control(plan, state)
        return None

    def settle(self, plan: Plan, state: RolloutState) -> None:
        """Let the winner answer, whatever a crash has left.

        Raises:
            ServerError: it does not answer yet.
        """
        if state.phase == "promoted":
            self._load(plan.challenger)
            self.promote(plan, state)
        elif obstacle := self.go_back(plan, state):
            raise ServerError(obstacle)

    def unload(self, version: str) -> None:
        """Forget a version; its requests must be done."""
        self._hold()
        self._versions.unload(version)

    def _answer_by_control(self, plan: Plan, state: RolloutState) -> None:
        self._set_default(plan.control)
        self._hold()
        self._promoted.take_back(state.rollout)

    def _load(self, version: str) -> None:
        if version not in self._versions.loaded():
            self._hold()
            self._versions.load(version)

    def _set_default(self, version: str) -> None:
        if self._versions.default() != version:
            self._hold()
            self._versions.set_default(version)


def observe_rollout(
    store: EventStore,
    plan: Plan,
    state: RolloutState,
    *,
    now: datetime,
    before_window_s: float,
    versions_ready: bool,
) -> Observation:
    """Return what a decision on a rollout is based on.

    Args:
        store: holds the records.
        plan: of the rollout.
        state: of the rollout; health is counted from its ``since`` on.
        now: with its time zone.
        before_window_s: window of the covariates, before the rollout's first exposure.
        versions_ready: whether both versions answer.
    """
    name = state.rollout
    with store.database.reading() as connection:
        totals = unit_totals(connection, name, before_window_s=before_window_s)
        return Observation(
            seconds_in_step=(now - state.since).total_seconds(),
            totals=totals,
            health={
                variant: variant_health(connection, name, variant, since=state.since)
                for variant in totals
            },
            double_exposed=_double_exposed(totals),
            shadow=_shadow(connection, plan, state) if state.serving == "shadow" else {},
            versions_ready=versions_ready,
            credits=team_credits(connection, name) if plan.interleaving else {},
        )


def _double_exposed(totals: Mapping[str, UnitTotals]) -> int:
    others = [one.units for variant, one in totals.items() if variant != "control"]
    return len(set(totals["control"].units).intersection(chain.from_iterable(others)))


def _shadow(connection: Connection, plan: Plan, state: RolloutState) -> dict[str, float]:
    summary, latencies_ms = summarise_shadow(connection, state.rollout, state.since)
    if summary:
        low_ms = lowest_p99(latencies_ms, round(summary["requests"]), level_of(plan))
        if math.isfinite(low_ms):
            summary["p99_low_ms"] = low_ms
    return summary


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """How long things take, in seconds."""

    lease_s: float
    """After which another controller may act in the place of one that is silent."""
    drain_s: float
    """From the end of a split until no answer of it can be under way any more."""
    load_s: float
    """In which a version must have loaded and answered."""
    covariates_s: float
    """The window before a rollout, in which covariates are measured."""
    look_s: float
    """Between two looks that are kept for the report."""
    failed_looks: int = 30
    """Looks in a row that fail before a rollout is paused: nobody watches it any more."""


@dataclass(frozen=True)
class _Turn:
    """One rollout as it was read, and what may be done with it."""

    row: RolloutRow
    plan: Plan
    state: RolloutState
    acting: VersionActions


class Controller:
    """Acts on rollouts; one per process.

    Args:
        store: keeps rollouts and records.
        versions: the model server.
        promoted: what the next start serves.
        timing: how long things take.
        holder: of leases; another one for each controller.
        clock: the time now, with its time zone.
    """

    def __init__(
        self,
        store: EventStore,
        versions: ModelVersions,
        promoted: PromotedFile,
        timing: Timing,
        *,
        holder: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._versions = versions
        self._promoted = promoted
        self._timing = timing
        self._holder = holder
        self._clock = clock
        self._kept_at: dict[str, datetime] = {}
        self._settled: set[tuple[str, int]] = set()
        self._failed: Counter[str] = Counter()

    def tick_all(self) -> None:
        """Look at every rollout, but for those that are over and leave nothing to do.

        What goes wrong with one is told, and tried again at the next look.

        Raises:
            Unavailable: the store does not answer.
        """
        for row in self._store.rollouts.all():
            if (row.name, row.revision) in self._settled:
                continue
            try:
                self.tick(row.name)
            except (RolloutError, ServerError, Unavailable) as error:
                _LOG.warning("rollout %s waits: %s", row.name, error.message)
            except Exception:
                _LOG.exception("rollout %s could not be looked at", row.name)

    def tick(self, name: str) -> None:
        """Look at one rollout, unless another controller has its lease.

        Raises:
            RolloutError: an archive is gone.
            ServerError: TorchServe does not do what it is asked; nothing was decided.
            Unavailable: the store does not answer, or the lease was lost.
        """
        if not self._store.leases.acquire(name, self._holder, self._timing.lease_s):
            return
        turn = self._read(name)
        match turn.state.phase:
            case "draft":
                self._prepare(turn)
            case "shadow" | "ramp" | "paused" | "promoting":
                self._run(turn)
            case "rolling_back":
                self._go_back(turn)
            case "promoted" | "rolled_back" | "aborted":
                self._settle(turn)

    def release(self) -> None:
        """Give all leases back, so that another controller may act at once."""
        for row in self._store.rollouts.all():
            self._store.leases.release(row.name, self._holder)

    def _read(self, name: str) -> _Turn:
        row = self._store.rollouts.get(name)
        acting = VersionActions(self._versions, self._promoted, lambda: self._hold(name))
        return _Turn(row, *_parsed(row), acting)

    def _prepare(self, turn: _Turn) -> None:
        """Nothing is sent to the challenger before it has answered."""
        plan, state = turn.plan, turn.state
        try:
            obstacle = turn.acting.prepare(plan)
        except (RolloutError, ServerError) as error:
            obstacle = error.message
        if obstacle is None:
            self._write(turn, command("start", plan, state, self._clock()))
        elif self._seconds_in(state) <= self._timing.load_s:
            _LOG.info("rollout %s: %s", state.rollout, obstacle)
        else:
            aborted = command("abort", plan, state, self._clock())
            reason = f"the challenger could not be made ready: {obstacle}"
            self._write(turn, aborted.model_copy(update={"reason": reason}))

    def _run(self, turn: _Turn) -> None:
        plan, state = turn.plan, turn.state
        ready = self._both_ready(turn)
        now = self._clock()
        try:
            observation = observe_rollout(
                self._store,
                plan,
                state,
                now=now,
                before_window_s=self._timing.covariates_s,
                versions_ready=ready,
            )
            decision = decide(plan, state, observation)
        except Exception as error:
            self._pause_unwatched(turn, error)
            raise
        del self._failed[state.rollout]
        changed = next_state(state, decision, now)
        self._keep(state, snapshot_of(state, observation, decision), at_once=changed != state)
        if changed == state:
            return
        if changed.phase == "promoted":
            # Before it is written: until then the split names the versions, so no shopper is
            # answered by the default one, and whoever comes after a crash here does it again or
            # undoes it. After it, shoppers would see the old version until somebody came.
            turn.acting.promote(plan, state)
        self._write(turn, changed)

    def _pause_unwatched(self, turn: _Turn, error: Exception) -> None:
        """Pause after too many looks without a decision: no guardrail was judged in them."""
        state = turn.state
        self._failed[state.rollout] += 1
        looks = self._failed[state.rollout]
        if looks < self._timing.failed_looks or state.phase == "paused":
            return
        why = error.message if isinstance(error, NewshelfError) else repr(error)
        reason = (
            f"{looks} looks in a row could not be decided, so nobody watches the guardrails: {why}"
        )
        self._write(turn, next_state(state, pause("no_data", state, reason), self._clock()))

    def _both_ready(self, turn: _Turn) -> bool:
        try:
            obstacle = turn.acting.keep_running(turn.plan, turn.state)
        except (RolloutError, ServerError) as error:
            obstacle = error.message
        if obstacle is not None:
            _LOG.warning("rollout %s: %s", turn.state.rollout, obstacle)
        return obstacle is None

    def _go_back(self, turn: _Turn) -> None:
        # Written afterwards: "rolled_back" says that control answers everybody.
        if obstacle := turn.acting.go_back(turn.plan, turn.state):
            raise ServerError(obstacle)
        self._write(turn, _rolled_back(turn.state, self._clock()))

    def _settle(self, turn: _Turn) -> None:
        """The winner of the rollout that ended last answers; losers go when they are idle."""
        rows = self._store.rollouts.all()
        if turn.row.name == _decider(rows).name:
            turn.acting.settle(turn.plan, turn.state)
        if not self._is_drained(turn.state):
            return
        loser = versions_of(turn.plan, turn.state).loser
        if loser not in self._needed(rows, besides=turn.row.name):
            turn.acting.unload(loser)
        self._settled.add((turn.row.name, turn.row.revision))

    def _needed(self, rows: Sequence[RolloutRow], besides: str) -> set[str]:
        """The versions that rollouts serve, or may be answering by."""
        needed = set()
        for row in rows:
            plan, state = _parsed(row)
            outcome = versions_of(plan, state)
            if row is _decider(rows):
                needed.add(outcome.winner)
            if row.name != besides and (state.phase not in OVER or not self._is_drained(state)):
                needed |= {outcome.winner, outcome.loser}
        return needed

    def _is_drained(self, state: RolloutState) -> bool:
        """Whether every gateway has stopped splitting, and what it had asked is answered."""
        if self._seconds_in(state) < self._timing.drain_s:
            return False
        last = self._store.last_answer_at(state.rollout)
        return last is None or (self._clock() - last).total_seconds() >= self._timing.drain_s

    def _seconds_in(self, state: RolloutState) -> float:
        return (self._clock() - state.since).total_seconds()

    def _keep(self, state: RolloutState, snapshot: Snapshot, *, at_once: bool) -> None:
        now, last = self._clock(), self._kept_at.get(state.rollout)
        if at_once or last is None or (now - last).total_seconds() >= self._timing.look_s:
            self._store.rollouts.add_snapshot(state.rollout, snapshot.model_dump_json())
            self._kept_at[state.rollout] = now

    def _write(self, turn: _Turn, changed: RolloutState) -> None:
        name = turn.row.name
        self._hold(name)
        written = self._store.rollouts.replace_state(
            name,
            turn.row.revision,
            changed.model_dump_json(),
            split_of(turn.plan, changed),
            changed.reason,
            holder=self._holder,
        )
        if written:
            _LOG.info("rollout %s: %s: %s", name, changed.phase, changed.reason)

    def _hold(self, name: str) -> None:
        if not self._store.leases.acquire(name, self._holder, self._timing.lease_s):
            raise Unavailable(f"another controller acts on {name}")


def _parsed(row: RolloutRow) -> tuple[Plan, RolloutState]:
    plan = Plan.model_validate_json(row.plan)
    return plan, RolloutState.model_validate_json(row.state)


def _decider(rows: Sequence[RolloutRow]) -> RolloutRow:
    """The rollout that changed last: an older one may have been taken back since."""
    return max(rows, key=lambda row: (row.updated_at, row.created_at))


def _rolled_back(state: RolloutState, at: datetime) -> RolloutState:
    return state.model_copy(
        update={"phase": "rolled_back", "since": at, "revision": state.revision + 1}
    )
