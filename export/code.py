"""The part of Newshelf that a handler needs, and that an archive therefore carries."""

from pathlib import Path

import grimp

import newshelf

__all__ = ["ROOT", "START_UP", "handler_path", "needed_sources"]

ROOT = Path(newshelf.__file__).resolve().parents[1]
"""The folder that holds ``newshelf`` and ``handlers``."""

START_UP = "sitecustomize.py"
"""In ``handlers``, and at an archive's root: what a worker's Python runs first."""


def handler_path(name: str) -> Path:
    """Where the handler of a model lies: ``encoder`` → ``handlers/encoder_handler.py``."""
    return ROOT / "handlers" / f"{name}_handler.py"


def needed_sources(name: str) -> list[Path]:
    """Every module of ours that the handler of model ``name``, or a worker's start, imports,
    however indirectly.

    Imports for type checkers alone do not count, nor do those that name their module at run
    time. The packages around a module do, since they are run before it.

    Returns:
        Paths relative to ``ROOT``, sorted.
    """
    graph = grimp.build_graph(
        "newshelf", "handlers", exclude_type_checking_imports=True, cache_dir=None
    )
    found: set[str] = set()
    roots = {f"handlers.{name}_handler", "handlers.sitecustomize"}
    new = {*roots, "handlers.preloader"}
    while new:
        found |= new
        reached = {module for start in new for module in graph.find_upstream_modules(start)}
        parents = {parent for module in reached for parent in _parents(module)}
        new = (reached | parents) - found
    # These two lie at an archive's root.
    return sorted(_source(module) for module in found - roots)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _source(module: str) -> Path:
    path = Path(*module.split("."))
    package = path / "__init__.py"
    return package if (ROOT / package).exists() else path.with_suffix(".py")
