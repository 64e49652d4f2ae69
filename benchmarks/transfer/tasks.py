"""The tasks by name; each is imported when it is run."""

from collections.abc import Callable
from importlib import import_module

from benchmarks.transfer.context import Context
from benchmarks.transfer.result import TaskResult

__all__ = ["TASKS", "load_task"]

TASKS: dict[str, str] = {
    "jewellery": "benchmarks.transfer.jewellery",
    "office": "benchmarks.transfer.office",
    "wild": "benchmarks.transfer.wild",
    "fusion": "benchmarks.transfer.fusion",
    "home": "benchmarks.transfer.home",
    "retail": "benchmarks.transfer.retail",
    "bundles": "benchmarks.transfer.bundles",
    "episodes": "benchmarks.transfer.episodes",
    "maml": "benchmarks.transfer.maml",
    "xdeepfm": "benchmarks.transfer.xdeepfm",
    "titles": "benchmarks.transfer.titles",
}
"""Task name → module with ``run(context) -> TaskResult``."""


def load_task(name: str) -> Callable[[Context], TaskResult]:
    """The task's ``run``."""
    run: Callable[[Context], TaskResult] = import_module(TASKS[name]).run
    return run
