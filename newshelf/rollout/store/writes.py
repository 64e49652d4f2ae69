"""What a transaction of the gateway writes."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.rollout.records import Exposure, Feedback
from newshelf.rollout.store.insert import MOST_ROWS
from newshelf.rollout.store.shadow import ShadowAnswer

__all__ = ["Writes"]


@dataclass(frozen=True)
class Writes:
    """What one transaction writes."""

    exposures: Sequence[Exposure] = ()
    feedback: Sequence[Feedback] = ()
    """May name the requests of ``exposures``."""
    shadow: Sequence[ShadowAnswer] = ()

    @property
    def is_one_statement(self) -> bool:
        """Whether one statement writes it: the most of what a gateway writes."""
        return not self.feedback and not self.shadow and 0 < len(self.exposures) <= MOST_ROWS
