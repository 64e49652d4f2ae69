"""Makes TorchServe follow a rollout, and only while the lease is held.

Each step may be done again: what is so already is left as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from newshelf.errors import ServerError
from newshelf.rollout.plan import Plan
from newshelf.rollout.state import RolloutState
from newshelf.rollout.versions import Versions
from newshelf.server.promoted import PromotedFile

__all__ = ["Acting", "Ending", "versions_of"]

_WARM_UP_REQUESTS = 20


@dataclass(frozen=True)
class Ending:
    """Which version answers everybody when a rollout ends as it stands, and which none."""

    winner: str
    loser: str


def versions_of(plan: Plan, state: RolloutState) -> Ending:
    """The challenger wins by being promoted, and control otherwise."""
    if state.phase == "promoted":
        return Ending(plan.challenger, plan.control)
    return Ending(plan.control, plan.challenger)


class Acting:
    """The hands of one controller, for one rollout.

    Every method may raise ``ServerError`` when TorchServe does not do it, ``RolloutError`` when
    an archive is gone, and what ``hold`` raises.

    Args:
        versions: the model server.
        promoted: what the next start serves.
        hold: prolongs the lease; raises when another controller has it.
    """

    def __init__(
        self, versions: Versions, promoted: PromotedFile, hold: Callable[[], None]
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
