"""Where a run's losses and metrics go: TensorBoard, MLflow, or nowhere."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["NoTracker", "Tracker"]


class Tracker(Protocol):
    """Takes scalars while a run goes on."""

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` of the loop ``name`` after ``step`` epochs."""
        ...

    def close(self) -> None:
        """Flush what is not written yet."""
        ...


class NoTracker:
    """Keeps nothing."""

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
