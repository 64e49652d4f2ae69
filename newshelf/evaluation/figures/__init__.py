"""Plots for reports and benchmarks: one kind of picture per module, each written as PNG."""

from newshelf.evaluation.figures.bars import draw_bars
from newshelf.evaluation.figures.confusion import draw_confusion
from newshelf.evaluation.figures.embedding_map import draw_map, project
from newshelf.evaluation.figures.lines import Line, draw_lines
from newshelf.evaluation.figures.neighbours import NeighbourRow, Tile, draw_neighbours

__all__ = [
    "Line",
    "NeighbourRow",
    "Tile",
    "draw_bars",
    "draw_confusion",
    "draw_lines",
    "draw_map",
    "draw_neighbours",
    "project",
]
