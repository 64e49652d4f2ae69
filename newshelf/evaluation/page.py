"""A report as a reader goes through it, before it is Markdown or HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.evaluation.tables import Table

__all__ = ["Page", "Picture", "Section"]


@dataclass(frozen=True)
class Picture:
    """A PNG beside the report."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with what belongs to it."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    verdict: str = ""
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    facts: Sequence[str]
    """Date, model, seed and versions."""
    pictures: Sequence[Picture]
    sections: Sequence[Section]
