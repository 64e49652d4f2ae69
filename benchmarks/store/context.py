"""What every task of ``./run bench store`` is given."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """One run of the benchmark."""

    work: Path
    """Databases are made here, and taken away."""
    rounds: int
    """Turns of each contender."""
    seconds: float
    """Of one load."""
    per_second: float
    """Answers, over all gateways."""
    busy_us: float
    """What a gateway computes for each answer besides storing it."""
    console: Console
