"""The tasks by name; each is imported when it is run."""

__all__ = ["REVISIONS", "TASKS"]

TASKS: dict[str, str] = {
    "jewellery": "benchmarks.transfer.jewellery",
    "office": "benchmarks.transfer.office",
    "wild": "benchmarks.transfer.wild",
    "fusion": "benchmarks.transfer.fusion",
    "home": "benchmarks.transfer.home",
    "retail": "benchmarks.transfer.retail",
    "bundles": "benchmarks.transfer.bundles",
    "fusion-ranking": "benchmarks.transfer.fusion_ranking",
    "episodes": "benchmarks.transfer.episodes",
    "maml": "benchmarks.transfer.maml",
    "xdeepfm": "benchmarks.transfer.xdeepfm",
    "titles": "benchmarks.transfer.titles",
}
"""Task name → module with ``run(context) -> TaskResult``."""
REVISIONS = {
    "jewellery": 2,
    "office": 2,
    "wild": 2,
    "home": 2,
    "retail": 2,
    "bundles": 2,
    "fusion-ranking": 2,
    "episodes": 2,
    "maml": 2,
    "xdeepfm": 2,
}
"""Raised when a task, or what it measures, changes so that earlier results no longer hold."""
