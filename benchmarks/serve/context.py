"""What every task of ``./run bench serve`` is given."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """One run of the benchmark."""

    catalog: Path | None
    """Whose pictures are sent; None draws a shop."""
    work: Path
    """Models, environments and servers' folders."""
    figures: Path
    """Where plots go."""
    rounds: int
    """Turns of each contender."""
    seconds: float
    """Of one load."""
    console: Console

    @property
    def warm_up_s(self) -> float:
        """Of the load before the first that counts, which finds caches, pools and Java cold.

        TorchScript takes seconds over its first requests of each batch size.
        """
        return max(5.0, self.seconds)
