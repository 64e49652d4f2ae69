"""The tasks by name; each is imported when it is run."""

__all__ = ["REVISIONS", "TASKS"]

TASKS: dict[str, str] = {
    "jewellery": "benchmarks.transfer.jewellery:run",
    "office": "benchmarks.transfer.office:run",
    "wild": "benchmarks.transfer.wild:run",
    "fusion": "benchmarks.transfer.fusion:run",
    "home": "benchmarks.transfer.home:run",
    "retail": "benchmarks.transfer.retail:run",
    "bundles": "benchmarks.transfer.bundles:run",
    "fusion-ranking": "benchmarks.transfer.fusion_ranking:run",
    "episodes": "benchmarks.transfer.episodes:run",
    "maml": "benchmarks.transfer.maml:run",
    "xdeepfm": "benchmarks.transfer.xdeepfm:run",
    "titles": "benchmarks.transfer.titles:run",
}
"""Task name → ``module:function``."""
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
