"""The controller: observes rollouts, decides, and makes TorchServe follow.

The event store holds the desired state, and every look moves TorchServe towards it, so a killed
controller's successor continues from the stored state. Each host's controller moves the host's own
TorchServe and reports; a rollout goes on when all hosts report that they are in line. A lease per
host lets one controller move it, a lease per rollout lets one decide; a change is written only
while that lease is held and the rollout has not changed meanwhile.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from sqlalchemy.engine import Connection

from newshelf.config import RolloutSettings
from newshelf.errors import NewshelfError, RolloutError, ServerError, Unavailable
from newshelf.files import StrictModel
from newshelf.rollout.analysis import level_of, lowest_p99
from newshelf.rollout.decide import decide, next_state, pause
from newshelf.rollout.history import Snapshot, snapshot_of
from newshelf.rollout.operations import command
from newshelf.rollout.plan import OVER, Plan, RolloutState, served_by, split_of
from newshelf.rollout.versions import PromotedFile, TorchServeVersions
from newshelf.server.webhooks import Webhooks
from newshelf.store.aggregates import summarise_shadow, team_credits, unit_totals, variant_health
from newshelf.store.records import Observation
from newshelf.store.rollouts import RolloutRow
from newshelf.store.store import EventStore

_WARM_UP_REQUESTS = 20
_DAY_S = 86_400


def final_versions(plan: Plan, state: RolloutState) -> tuple[str, str]:
    """Return the versions that stay and go: the challenger wins a promotion, control all else."""
    if state.phase == "promoted":
        return plan.challenger, plan.control
    return plan.control, plan.challenger


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

    Health is counted from ``state.since`` on, covariates in a window before the rollout's first
    exposure.
    """
    name = state.rollout
    with store.database.reading() as connection:
        totals = unit_totals(connection, name, before_window_s=before_window_s)
        others = [one.units for variant, one in totals.items() if variant != "control"]
        return Observation(
            seconds_in_step=(now - state.since).total_seconds(),
            totals=totals,
            health={
                variant: variant_health(connection, name, variant, since=state.since)
                for variant in totals
            },
            double_exposed=len(set(totals["control"].units).intersection(chain(*others))),
            shadow=_shadow(connection, plan, state) if state.serving == "shadow" else {},
            versions_ready=versions_ready,
            credits=team_credits(connection, name) if plan.interleaving else {},
        )


def _shadow(connection: Connection, plan: Plan, state: RolloutState) -> dict[str, float]:
    summary, latencies_ms = summarise_shadow(connection, state.rollout, state.since)
    if summary:
        low_ms = lowest_p99(latencies_ms, round(summary["requests"]), level_of(plan))
        if math.isfinite(low_ms):
            summary["p99_low_ms"] = low_ms
    return summary


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Look:
    row: RolloutRow
    plan: Plan
    state: RolloutState


class HostReport(StrictModel):
    """A host's last look at a rollout."""

    rollout: str
    revision: int
    obstacle: str | None
    """Why its model server is not in line with this revision; None if it is."""


def host_obstacles(store: EventStore, row: RolloutRow) -> dict[str, str | None]:
    """Return why each host is not in line with a rollout; None if it is, nothing at the end."""
    found: dict[str, str | None] = {}
    if _parsed(row)[1].phase in OVER:
        return found
    for host, text in store.hosts.reports().items():
        report = HostReport.model_validate_json(text) if text else None
        if report is None or (report.rollout, report.revision) != (row.name, row.revision):
            found[host] = "has not looked at this state yet"
        else:
            found[host] = report.obstacle
    return found


@dataclass(eq=False)
class Controller:
    """Observes rollouts and acts on them, while it holds its host's lease; one per process.

    Actions on the model server are idempotent.

    ``drain_s`` are the seconds from the end of a split until none of its answers can be in
    progress. ``host`` is the model server's; ``holder`` of the leases is unique to each controller.
    """

    store: EventStore
    versions: TorchServeVersions
    promoted: PromotedFile
    settings: RolloutSettings
    webhooks: Webhooks
    drain_s: float
    host: str
    holder: str
    clock: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._snapshot_at: dict[str, datetime] = {}
        self._settled: set[tuple[str, int]] = set()
        self._failed: Counter[str] = Counter()

    def tick_all(self) -> None:
        """Look at every rollout, except those that are over and fully settled.

        The last one is always looked at: the model server may start again with an old version.
        Errors of one rollout are logged, and the next look tries again. Raises ``Unavailable`` if
        the store does not answer.
        """
        rows = self.store.rollouts.all()
        for row in rows:
            if (row.name, row.revision) in self._settled and row is not _decider(rows):
                continue
            try:
                self.tick(row.name)
            except (RolloutError, ServerError, Unavailable) as error:
                _LOG.warning("rollout %s: the next look tries again: %s", row.name, error.message)
            except Exception:
                _LOG.exception("rollout %s: the look failed", row.name)

    def tick(self, name: str) -> None:
        """Let this host follow a rollout, and decide on it unless another controller does.

        Raises ``RolloutError`` if an archive is missing, ``ServerError`` if TorchServe refuses, and
        ``Unavailable`` if the store does not answer, or the lease is lost.
        """
        if not self.register():
            _LOG.warning("another controller acts on the host %s", self.host)
            return
        row = self.store.rollouts.get(name)
        look = _Look(row, *_parsed(row))
        if look.state.phase in OVER:
            self._settle(look)
            return
        own = self._follow(look)
        if not self.store.leases.acquire(name, self.holder, self.settings.lease_s):
            return
        obstacle = self._obstacle(look, own)
        match look.state.phase:
            case "draft":
                self._prepare(look, obstacle)
            case "rolling_back":
                self._roll_back(look, obstacle)
            case _:
                self._run(look, obstacle)

    def register(self) -> bool:
        """Take or prolong the host's lease: rollouts wait for the hosts that have one."""
        return self.store.hosts.acquire(self.host, self.holder, self.settings.lease_s)

    def release(self) -> None:
        """Release all leases, so that another controller may act at once."""
        for row in self.store.rollouts.all():
            self.store.leases.release(row.name, self.holder)
        self.store.hosts.release(self.host, self.holder)

    def _follow(self, look: _Look) -> str | None:
        """Bring this host's model server in line with a rollout; report and return an obstacle."""
        try:
            obstacle = self._align(look)
        except (RolloutError, ServerError) as error:
            obstacle = error.message
        name, revision = look.row.name, look.row.revision
        report = HostReport(rollout=name, revision=revision, obstacle=obstacle)
        if not self.store.hosts.report(self.host, self.holder, report.model_dump_json()):
            raise Unavailable(f"another controller acts on the host {self.host}")
        return obstacle

    def _align(self, look: _Look) -> str | None:
        """Load what is missing, set the default; return why a version does not answer, if so."""
        plan, phase = look.plan, look.state.phase
        if phase == "rolling_back":
            self._restore_control(look)
            return None
        for version in (plan.control, plan.challenger):
            self._load(version)
        if phase != "promoting":
            # A promotion may have been interrupted after the default changed.
            self._set_control(look)
        requests = _WARM_UP_REQUESTS if phase in {"draft", "promoting"} else 1
        obstacle = self.versions.obstacle(
            plan.challenger, requests=requests
        ) or self.versions.obstacle(plan.control)
        if obstacle is None and phase == "promoting":
            # Before the state is written: gateways name the versions until then, so no shopper
            # sees the default, and a server that starts again has the new one.
            self._promote(look)
        return obstacle

    def _obstacle(self, look: _Look, own: str | None) -> str | None:
        """Return why a host is not in line with the state; ``own`` is this one's reason."""
        found = host_obstacles(self.store, look.row) | {self.host: own}
        told = (f"{host}: {one}" for host, one in found.items() if one is not None)
        return next(told, None) if len(found) > 1 else own

    def _prepare(self, look: _Look, obstacle: str | None) -> None:
        """Start the rollout once the challenger answers; abort it if that takes too long."""
        plan, state = look.plan, look.state
        if obstacle is None:
            self._write(look, command("start", plan, state, self.clock()))
        elif self._seconds_in(state) <= self.settings.load_s:
            _LOG.info("rollout %s: %s", state.rollout, obstacle)
        else:
            aborted = command("abort", plan, state, self.clock())
            reason = f"the challenger could not be made ready: {obstacle}"
            self._write(look, aborted.model_copy(update={"reason": reason}))

    def _run(self, look: _Look, obstacle: str | None) -> None:
        plan, state = look.plan, look.state
        if obstacle is not None:
            _LOG.warning("rollout %s: %s", state.rollout, obstacle)
        now = self.clock()
        try:
            observation = observe_rollout(
                self.store,
                plan,
                state,
                now=now,
                before_window_s=self.settings.covariate_days * _DAY_S,
                versions_ready=obstacle is None,
            )
            decision = decide(plan, state, observation)
        except Exception as error:
            self._pause_unobserved(look, error)
            raise
        del self._failed[state.rollout]
        changed = next_state(state, decision, now)
        self._add_snapshot(
            state, snapshot_of(state, observation, decision), at_once=changed != state
        )
        if changed != state:
            self._write(look, changed, serve=served_by(plan, changed))

    def _pause_unobserved(self, look: _Look, error: Exception) -> None:
        """Pause after too many failed looks: no guardrail was checked in them."""
        state = look.state
        self._failed[state.rollout] += 1
        looks = self._failed[state.rollout]
        if looks < self.settings.failed_looks or state.phase == "paused":
            return
        why = error.message if isinstance(error, NewshelfError) else repr(error)
        reason = (
            f"{looks} looks in a row could not be decided, so nobody watches the guardrails: {why}"
        )
        self._write(look, next_state(state, pause("no_data", state, reason), self.clock()))

    def _promote(self, look: _Look) -> None:
        """Make the challenger the default version, now and after a restart."""
        self._set_default(look.plan.challenger)
        self._hold_host()
        self.promoted.promote(look.plan.challenger, look.row.name, look.plan.control)

    def _restore_control(self, look: _Look) -> None:
        """Make control the default version once it answers; ``ServerError`` until then."""
        self._load(look.plan.control)
        if obstacle := self.versions.obstacle(look.plan.control):
            raise ServerError(obstacle)
        self._set_control(look)

    def _set_control(self, look: _Look) -> None:
        self._set_default(look.plan.control)
        self._hold_host()
        self.promoted.take_back(look.row.name)

    def _load(self, version: str) -> None:
        if version not in self.versions.loaded():
            self._hold_host()
            self.versions.load(version)

    def _set_default(self, version: str) -> None:
        if self.versions.default() != version:
            self._hold_host()
            self.versions.set_default(version)

    def _roll_back(self, look: _Look, obstacle: str | None) -> None:
        # Written afterwards: "rolled_back" means that control answers everybody.
        if obstacle is not None:
            raise ServerError(obstacle)
        ended = {"phase": "rolled_back", "since": self.clock()}
        ended["revision"] = look.state.revision + 1
        named = self.store.rollouts.traffic().version
        serve = look.plan.control if named else None
        self._write(look, look.state.model_copy(update=ended), serve=serve)

    def _settle(self, look: _Look) -> None:
        """Let the last winner answer, and unload the loser once it is drained."""
        rows, this = self.store.rollouts.all(), (look.row.name, look.row.revision)
        winner, loser = final_versions(look.plan, look.state)
        if this in self._settled and self.versions.default() == winner:
            return
        if look.row.name == _decider(rows).name and look.state.phase == "promoted":
            self._load(look.plan.challenger)
            self._promote(look)
        elif look.row.name == _decider(rows).name:
            self._restore_control(look)
        if not self._is_drained(look.state):
            return
        if loser not in self._needed(rows, except_for=look.row.name):
            self._hold_host()
            self.versions.unload(loser)
        self._settled.add(this)

    def _needed(self, rows: Sequence[RolloutRow], except_for: str) -> set[str]:
        """Return the versions that other rollouts serve or may still answer with."""
        needed = set()
        for row in rows:
            plan, state = _parsed(row)
            winner, loser = final_versions(plan, state)
            if row is _decider(rows):
                needed.add(winner)
            if row.name != except_for and (state.phase not in OVER or not self._is_drained(state)):
                needed |= {winner, loser}
        return needed

    def _is_drained(self, state: RolloutState) -> bool:
        """Return whether every gateway has stopped splitting and has its answers."""
        if self._seconds_in(state) < self.drain_s:
            return False
        last = self.store.last_answer_at(state.rollout)
        return last is None or (self.clock() - last).total_seconds() >= self.drain_s

    def _seconds_in(self, state: RolloutState) -> float:
        return (self.clock() - state.since).total_seconds()

    def _add_snapshot(self, state: RolloutState, snapshot: Snapshot, *, at_once: bool) -> None:
        now, last = self.clock(), self._snapshot_at.get(state.rollout)
        if at_once or last is None or (now - last).total_seconds() >= self.settings.look_s:
            self.store.rollouts.add_snapshot(state.rollout, snapshot.model_dump_json())
            self._snapshot_at[state.rollout] = now

    def _write(self, look: _Look, changed: RolloutState, serve: str | None = None) -> None:
        name = look.row.name
        if not self.store.leases.acquire(name, self.holder, self.settings.lease_s):
            raise Unavailable(f"another controller acts on {name}")
        written = self.store.rollouts.replace_state(
            name,
            look.row.revision,
            changed.model_dump_json(),
            split_of(look.plan, changed),
            changed.reason,
            holder=self.holder,
            serve=serve,
        )
        if written:
            _LOG.info("rollout %s: %s: %s", name, changed.phase, changed.reason)
            self.webhooks.send(changed.phase, changed.reason, rollout=name)

    def _hold_host(self) -> None:
        if not self.register():
            raise Unavailable(f"another controller acts on the host {self.host}")


def _parsed(row: RolloutRow) -> tuple[Plan, RolloutState]:
    plan = Plan.model_validate_json(row.plan)
    return plan, RolloutState.model_validate_json(row.state)


def _decider(rows: Sequence[RolloutRow]) -> RolloutRow:
    """Return the rollout that changed last: an older one may have been rolled back since."""
    return max(rows, key=lambda row: (row.updated_at, row.created_at))
