"""The tasks of ``./run bench serve`` by name; each is imported when it is run."""

__all__ = ["TASKS"]

TASKS: dict[str, str] = {
    # These two first, before this process has loaded what the workers load.
    "memory": "benchmarks.serve.memory:run",
    "growth": "benchmarks.serve.growth:run",
    "resnet50": "benchmarks.serve.resnet50:run",
    "lite0": "benchmarks.serve.lite0:run",
    "recommender": "benchmarks.serve.recommended:run",
    "search": "benchmarks.serve.search:run",
    "cache": "benchmarks.serve.repeated:run",
    "clients": "benchmarks.serve.clients:run",
    "batches": "benchmarks.serve.batches:run",
    "layouts": "benchmarks.serve.layouts:run",
    "ceiling": "benchmarks.serve.ceiling:run",
}
"""Task name → ``module:function``."""
