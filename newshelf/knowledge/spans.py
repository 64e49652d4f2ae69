"""Titles with marked spans: what a tagger learns from, and what it gives back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from newshelf.errors import TrainingError

__all__ = ["Span", "TaggedTitle", "read_tagged", "span_problem"]


class Span(NamedTuple):
    """``title[start:end]`` is a ``label``; positions count characters from 0."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class TaggedTitle:
    """A title and its spans: inside the title, none empty, in order, none overlapping."""

    title: str
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        if problem := span_problem(self.title, self.spans):
            raise ValueError(problem)


def span_problem(title: str, spans: Sequence[Span]) -> str | None:
    """Why the spans cannot be those of the title; None when they can."""
    end = 0
    for span in spans:
        where = f"span {span.start}…{span.end} ({span.label})"
        if span.start < 0 or span.end > len(title):
            return f"{where} is outside the title of {len(title)} characters"
        if span.start >= span.end:
            return f"{where} is empty: the end must come after the start"
        if span.start < end:
            return f"{where} overlaps the one before it, or comes before it"
        end = span.end
    return None


def read_tagged(path: Path) -> list[TaggedTitle]:
    """Read ``{"title": …, "entities": [[start, end, label], …]}``, one object per line.

    Spans may come in any order. A title without text has nothing to learn from and is
    refused, as is everything else that would teach a tagger something wrong.

    Raises:
        TrainingError: with the file, the line and the reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise TrainingError(f"cannot read the tagged titles {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8: {error}") from error
    titles: list[TaggedTitle] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                titles.append(_parse(line))
            except ValueError as error:
                raise TrainingError(f"{path} line {number}: {error}") from error
    if not titles:
        raise TrainingError(f"{path} has no tagged titles: write one JSON object per line")
    return titles


def _parse(line: str) -> TaggedTitle:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("title"), str):
        raise ValueError('write {"title": text, "entities": [[start, end, label], …]}')
    if not row["title"].strip():
        raise ValueError("the title is empty")
    entities = row.get("entities")
    if not isinstance(entities, list):
        raise ValueError("entities must be a list; write [] where a title has none")
    return TaggedTitle(row["title"], tuple(sorted(_spans(entities))))


def _spans(entities: Iterable[object]) -> Iterable[Span]:
    for entity in entities:
        match entity:
            case [int(start), int(end), str(label)] if label.strip():
                yield Span(start, end, label)
            case _:
                raise ValueError(f"{entity!r} is no span: write [start, end, label]")
