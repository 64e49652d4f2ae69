"""What a training run has beside its data: seed, kept progress, tracker and console."""

from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from newshelf.files import write_aside
from newshelf.transfer.group import agreed, is_first
from newshelf.transfer.tracking import NoTracker, Tracker

__all__ = ["Progress", "Run"]


@dataclass(frozen=True)
class Progress:
    """Where one loop was after an epoch."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    history: dict[str, Any]
    best: dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """Passed to every loop of one training.

    ``state`` is a folder for this run alone; what lies there is taken up only when it was
    kept under the same ``identity`` (data, settings and code), so a changed run starts anew.
    """

    seed: int
    console: Console = field(default_factory=lambda: Console(stderr=True))
    state: Path | None = None
    """None keeps no progress."""
    identity: str = ""
    tracker: Tracker = field(default_factory=NoTracker)
    quiet: bool = False
    """Show no progress bar, as for the many small loops of an experiment."""
    labels: dict[str, str] = field(default_factory=dict)
    """What the progress bar says, by the loop's name."""

    def label(self, name: str) -> str:
        """The progress bar's words."""
        return self.labels.get(name, f"training {name}")

    def tell(self, line: str) -> None:
        """Print a line, unless the run is quiet."""
        if not self.quiet:
            self.console.print(line, markup=False)

    def load(self, name: str) -> Progress | None:
        """What was kept under ``name``; None when there is nothing that fits.

        The first process reads, and tells the others.
        """
        progress: Progress | None = agreed(self._read(name) if is_first() else None)
        return progress

    def _read(self, name: str) -> Progress | None:
        path = self._path(name)
        if path is None or not path.exists():
            return None
        try:
            kept = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            self.tell(f"{path} cannot be resumed from ({error}): starting anew")
            return None
        if kept.pop("identity", None) != self.identity:
            return None
        return Progress(**kept)

    def save(self, name: str, progress: Progress) -> None:
        """Keep it, written aside and renamed; with several processes, the first one does."""
        path = self._path(name)
        if path is None or not is_first():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as aside:
            torch.save({"identity": self.identity, **vars(progress)}, aside)

    def _path(self, name: str) -> Path | None:
        return None if self.state is None else self.state / f"{name}.pt"
