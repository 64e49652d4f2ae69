"""The event store: what was shown to whom, what came of it, and how rollouts stand."""

from newshelf.rollout.store.group_commit import GroupCommit
from newshelf.rollout.store.looks import KeptLook
from newshelf.rollout.store.observe import Observed
from newshelf.rollout.store.outcome import OUTCOMES, Outcome
from newshelf.rollout.store.prune import Pruned
from newshelf.rollout.store.read import StoredFeedback
from newshelf.rollout.store.rollouts import JournalEntry, RolloutRow
from newshelf.rollout.store.shadow import ShadowAnswer
from newshelf.rollout.store.spool import Spool
from newshelf.rollout.store.store import JOIN_WINDOW, EventStore
from newshelf.rollout.store.writes import Writes

__all__ = [
    "JOIN_WINDOW",
    "OUTCOMES",
    "EventStore",
    "GroupCommit",
    "JournalEntry",
    "KeptLook",
    "Observed",
    "Outcome",
    "Pruned",
    "RolloutRow",
    "ShadowAnswer",
    "Spool",
    "StoredFeedback",
    "Writes",
]
