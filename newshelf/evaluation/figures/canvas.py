"""Figures without pyplot: no global state, no display, none left open."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["COLOURS", "MUTED", "new_figure", "save"]

# Okabe & Ito's palette, which colour-blind readers tell apart; then four more.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b4ba0",
    "#8c6d31",
    "#b0c41f",
    "#222222",
)
MUTED = "#c3c8d0"
_DPI = 120


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure whose labels are given the room that they need."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whatever the name ends in."""
    figure.savefig(path, format="png", dpi=_DPI)
