"""The rollouts of one controller, for those who look and command."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from newshelf.errors import SettingsError
from newshelf.rollout.change import change_rollout
from newshelf.rollout.commands import Command
from newshelf.rollout.look import Look, read_look
from newshelf.rollout.plan import Plan
from newshelf.rollout.start import start_rollout
from newshelf.rollout.state import RolloutState
from newshelf.rollout.store import EventStore, RolloutRow
from newshelf.rollout.versions import TorchServeVersions
from newshelf.server.controller_plan import ControllerPlan, read_controller_plan

__all__ = ["Rollouts", "open_rollouts"]


@dataclass(frozen=True)
class Rollouts:
    """What the verbs do. A name of None means the last rollout."""

    store: EventStore
    plan: ControllerPlan

    def start(self, plan: Plan, name: str) -> RolloutState:
        """See ``start_rollout``."""
        there = self.plan
        versions = TorchServeVersions(there.torchserve, there.model_store, there.question)
        return start_rollout(self.store, versions, there.model_store, plan, name, clock=_now)

    def change(self, name: str | None, wanted: Command) -> RolloutState:
        """See ``change_rollout``."""
        return change_rollout(self.store, self.row(name).name, wanted, clock=_now)

    def row(self, name: str | None) -> RolloutRow:
        """One rollout.

        Raises:
            SettingsError: there is none.
        """
        if name is not None:
            return self.store.rollout(name)
        rows = self.store.rollouts()
        if not rows:
            raise SettingsError("there was no rollout yet; ./run rollout start PLAN.yaml")
        return rows[-1]

    def last_look(self, name: str | None) -> tuple[datetime, Look] | None:
        """What the controller saw last; None before its first look."""
        kept = self.store.last_look(self.row(name).name)
        return None if kept is None else read_look(kept)


@contextmanager
def open_rollouts(plan_file: Path) -> Iterator[Rollouts]:
    """Open what a controller works on.

    Args:
        plan_file: of the controller.

    Raises:
        SettingsError: there is no controller, or its store cannot be opened.
    """
    plan = read_controller_plan(plan_file)
    with EventStore.open(plan.store_url) as store:
        yield Rollouts(store, plan)


def _now() -> datetime:
    return datetime.now(UTC)
