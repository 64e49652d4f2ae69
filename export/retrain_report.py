"""The report of a retraining: one HTML page."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from newshelf.evaluation.types import GateResult
from newshelf.pipeline.retrain import RetrainRun
from newshelf.report.page import Page, Picture, ReportTable, Section, save_page
from newshelf.report.plots import COLOURS, MUTED, Bar, BarPanel, draw_bars


def write_report(runs: Sequence[RetrainRun], path: Path) -> None:
    """Write the page of the last run; the others are its history."""
    run = runs[-1]
    merged = ", ".join(f"{count:,} {kind}" for kind, count in run.data.items()) or "nothing yet"
    facts = [f"served {run.served}", f"new {run.version or '–'}", f"merged {merged}", *run.notes]
    with tempfile.TemporaryDirectory(prefix="newshelf-report-") as name:
        folder = Path(name)
        sections = [
            Section("Decision", verdict=f"{run.status.capitalize()}: {run.reason}"),
            *([_gate(run.gate, folder)] if run.gate else []),
            Section("All retrainings", tables=[_history(runs)]),
        ]
        save_page(Page(f"Retraining {run.name}", facts, [], sections), path, folder)


def _gate(gate: GateResult, folder: Path) -> Section:
    rows, panels = [], []
    for one in gate.compared:
        interval = "–" if one.interval is None else "{:+.4f} to {:+.4f}".format(*one.interval)
        figures = (one.served, one.candidate, one.candidate - one.served)
        rows.append([one.name, f"{one.cases}", *(f"{figure:.4f}" for figure in figures), interval])
        served = Bar("served", one.served, (one.served, one.served), MUTED)
        low, high = one.interval or figures[2:] * 2
        around = (one.served + low, one.served + high)
        candidate = Bar("candidate", one.candidate, around, COLOURS[0])
        panels.append(BarPanel(f"{one.name}: {one.cases} cases", "NDCG@10", (served, candidate)))
    draw_bars(panels, folder / "gate.png", "Served version and candidate on the same cases")
    caption = "Means over the cases; the whisker is the 95 % interval of the difference."
    header = ("cases", "number", "served", "candidate", "difference", "95 %")
    table = ReportTable("NDCG@10", header, rows)
    pictures = [Picture("gate.png", caption)]
    return Section("Gate", text=gate.split, tables=[table], pictures=pictures)


def _history(runs: Sequence[RetrainRun]) -> ReportTable:
    rows = []
    for run in reversed(runs):
        first = run.gate.compared[0] if run.gate else None
        figures = (f"{first.served:.4f}", f"{first.candidate:.4f}") if first else ("–", "–")
        minutes = "–" if run.ended is None else f"{(run.ended - run.started).seconds / 60:.1f}"
        rows.append([run.name, minutes, *figures, run.status, run.reason])
    header = ("began", "minutes", "served", "candidate", "result", "why")
    return ReportTable("Newest first", header, rows, text_columns=[4, 5])
