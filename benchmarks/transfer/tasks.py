"""The tasks by name; each is imported when it is run."""

__all__ = ["TASKS"]

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
