"""Removes old answers and events, but none by which a rollout is still judged."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from newshelf.errors import RolloutError, SetupError
from newshelf.rollout.state import OVER, RolloutState
from newshelf.rollout.store import EventStore, Pruned

__all__ = ["prune_events"]


def prune_events(
    store: EventStore,
    before: datetime,
    *,
    covariate_days: float,
    force: bool = False,
    on_removed: Callable[[int], None],
) -> Pruned:
    """Remove what happened before a moment. Rollouts, their journal and looks are kept.

    Args:
        store: also while gateways write to it.
        before: with its time zone.
        covariate_days: how long before a rollout its shoppers are looked at.
        force: also if the clock may be wrong.
        on_removed: told how many rows each transaction has removed.

    Raises:
        RolloutError: a rollout under way needs some of it; nothing was removed.
        SetupError: the clock may have jumped ahead; nothing was removed.
    """
    doubt = None if force else store.clock_doubt(before, datetime.now(UTC))
    if doubt is not None:
        raise SetupError(
            f"nothing is removed before {before:%Y-%m-%d %H:%M} UTC: {doubt}. If this machine's "
            "clock is right, give --force"
        )
    for row in store.rollouts():
        needed = row.created_at - timedelta(days=covariate_days)
        if RolloutState.model_validate_json(row.state).phase not in OVER and before > needed:
            raise RolloutError(
                f"rollout {row.name} is judged by what happened since {needed:%Y-%m-%d %H:%M} UTC: "
                "keep it until the rollout is over"
            )
    return store.prune(before, on_removed)
