"""The learning curves of a checkpoint's ``training.json``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from newshelf.evaluation.figures import Line

__all__ = ["learning_curves"]

_SERIES = ("loss", "validation")
_SHORTEST = 2


def learning_curves(training: Mapping[str, Any]) -> dict[str, dict[str, Line]]:
    """Panels for :func:`newshelf.evaluation.figures.draw_lines`: training loop → name → line.

    Every list of numbers, or of records of numbers, whose key speaks of a loss or a
    validation is a curve over epochs, however deep it lies: what a training writes down
    differs with its methods. Curves of one epoch are left out.
    """
    panels: dict[str, dict[str, Line]] = {}
    for title, name, values in _found(training, ()):
        epochs = [float(epoch) for epoch in range(1, len(values) + 1)]
        panels.setdefault(title, {})[name] = Line(epochs, values)
    return panels


def _found(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    """(title, name, values) of each curve below ``value``."""
    if isinstance(value, Mapping):
        named = str(value["name"]) if isinstance(value.get("name"), str) else None
        for key, inner in value.items():
            yield from _found(inner, (*path[:-1], named, key) if named else (*path, str(key)))
    elif isinstance(value, list) and path and any(word in path[-1] for word in _SERIES):
        yield from _series(value, path)
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _found(inner, (*path[:-1], f"{path[-1]} {number}") if path else path)


def _series(values: list[Any], path: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    title, name = _names(path)
    if len(values) < _SHORTEST:
        return
    if all(_is_number(value) for value in values):
        yield title, name, [float(value) for value in values]
    elif all(isinstance(value, Mapping) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            column = [value.get(key) for value in values]
            if all(_is_number(value) for value in column):
                yield title, str(key), [float(value) for value in column]


def _names(path: Sequence[str]) -> tuple[str, str]:
    """``("scorer_losses",)`` → scorer, loss; ``("finetune 1", "losses")`` → finetune 1, loss."""
    *outer, last = path
    word = "validation" if "validation" in last else "loss"
    start = last.replace("losses", "").replace(word, "").strip("_ ").replace("_", " ")
    title = " ".join([part.replace("_", " ") for part in outer] + ([start] if start else []))
    return title or "training", word


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
