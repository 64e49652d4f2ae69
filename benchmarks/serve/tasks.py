"""The tasks of ``./run bench serve`` by name; each is imported when it is run."""

__all__ = ["TASKS"]

TASKS: dict[str, str] = {
    # These two first, before this process has loaded what the workers load.
    "memory": "benchmarks.serve.memory",
    "growth": "benchmarks.serve.growth",
    "resnet50": "benchmarks.serve.resnet50",
    "lite0": "benchmarks.serve.lite0",
    "recommender": "benchmarks.serve.recommended",
    "search": "benchmarks.serve.search",
    "cache": "benchmarks.serve.repeated",
    "clients": "benchmarks.serve.clients",
    "batches": "benchmarks.serve.batches",
    "layouts": "benchmarks.serve.layouts",
    "ceiling": "benchmarks.serve.ceiling",
}
"""Task name → module with ``run(context) -> TaskResult``."""
