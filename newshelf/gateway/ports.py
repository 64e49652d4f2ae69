"""What the gateway asks of others: of the event store, and of whoever assigns units.

A recorder's method returns when what it was given survives the end of this process.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from newshelf.rollout.records import Exposure, Feedback
from newshelf.rollout.split import Assigned, Split
from newshelf.rollout.store import Outcome, ShadowAnswer

__all__ = [
    "Assign",
    "ExposureRecorder",
    "FeedbackRecorder",
    "ReadSplits",
    "Recorder",
    "ShadowRecorder",
    "WatchedRecorder",
]

Assign = Callable[[Split, str], Assigned]
"""Where a unit belongs; the same in every process."""

ReadSplits = Callable[[], Sequence[Split]]
"""The rollouts that are served now. May block."""


class ExposureRecorder(Protocol):
    """Writes answers down."""

    async def exposure(self, exposure: Exposure) -> None:
        """Keep one answer.

        Raises:
            Unavailable: it could not be written.
        """
        ...


class FeedbackRecorder(Protocol):
    """Writes down what shoppers did."""

    async def feedback(self, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Keep events, and say of each what became of it.

        Raises:
            Unavailable: they could not be written; sending them again is safe.
        """
        ...


class ShadowRecorder(Protocol):
    """Writes down what a model answered to copies."""

    async def shadow(self, answer: ShadowAnswer) -> None:
        """Keep what a shadowed model answered.

        Raises:
            Unavailable: it could not be written.
        """
        ...


class Recorder(ExposureRecorder, FeedbackRecorder, ShadowRecorder, Protocol):
    """All of them: the event store, or what keeps rows for it."""


class WatchedRecorder(Recorder, Protocol):
    """One that knows how it stands."""

    away: str | None
    """Why nothing is written to the event store; None while it is."""
    refused: str | None
    """Why nothing can be recorded at all; None while the store or the spool take it."""
