"""The tasks of ``./run bench serve`` by name; each is imported when it is run."""

__all__ = ["TASKS"]

TASKS: dict[str, str] = {
    # First, before this process has loaded what the workers load.
    "memory": "benchmarks.serve.memory",
    "resnet50": "benchmarks.serve.resnet50",
    "lite0": "benchmarks.serve.lite0",
    "recommender": "benchmarks.serve.recommended",
    "search": "benchmarks.serve.search",
    "growth": "benchmarks.serve.growth",
    "cache": "benchmarks.serve.repeated",
    "clients": "benchmarks.serve.clients",
    "batches": "benchmarks.serve.batches",
    "layouts": "benchmarks.serve.layouts",
    "ceiling": "benchmarks.serve.ceiling",
}
"""Task name → module with ``run(context) -> TaskResult``."""
