"""The catalogue: schema, readers, validation, and the drawn sample.

The names below load pandas on first use only: ``newshelf.catalog.schema`` is carried by
the serving archives, whose workers should not pay for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newshelf.catalog.catalog import Catalog, read_catalog, write_catalog
    from newshelf.catalog.report import Problem, Report

__all__ = ["Catalog", "Problem", "Report", "read_catalog", "write_catalog"]

_HOMES = {
    "Catalog": "newshelf.catalog.catalog",
    "Problem": "newshelf.catalog.report",
    "Report": "newshelf.catalog.report",
    "read_catalog": "newshelf.catalog.catalog",
    "write_catalog": "newshelf.catalog.catalog",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
