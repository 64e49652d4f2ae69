"""What a larger batch brings: in process on one thread, and served."""

from statistics import median

from benchmarks.serve.context import Context
from benchmarks.serve.encoder import CLIENTS, loop_turn, newshelf_plan
from benchmarks.serve.inprocess import Loop
from benchmarks.serve.models import MODELS, make_model
from benchmarks.serve.pictures import SMALL
from benchmarks.serve.rounds import run_rounds, server_turn
from benchmarks.serve.torchserve import Layout, newshelf_encoder, unpacked
from benchmarks.transfer.result import Row, TaskResult
from newshelf.evaluation.figures.lines import Line, draw_lines

__all__ = ["SIZES", "run"]

SIZES = (1, 2, 4, 8, 16, 32)


def run(context: Context) -> TaskResult:
    """Each model with each batch size."""
    rows: list[Row] = []
    panels: dict[str, dict[str, Line]] = {}
    for name in MODELS:
        model = make_model(name, context.work, context.catalog, context.console)
        plan = newshelf_plan(model, SMALL, (CLIENTS,), context)
        turns = []
        for size in SIZES:
            served = newshelf_encoder(model, Layout(2, 1, size), context.work, f"served, {size}")
            turns.append(server_turn(served, plan))
            loop = Loop(2, 1, size)
            turns.append(
                loop_turn(f"in process, {size}", loop, unpacked(served.archive), plan, CLIENTS)
            )
        found = run_rounds(turns, context.rounds, context.console)
        for way in ("served", "in process"):
            speeds = [found[f"{way}, {size}"].values(CLIENTS) for size in SIZES]
            panels.setdefault(name, {})[way] = Line(SIZES, [median(each) for each in speeds])
            rows += [
                Row(f"{name}, batch ≤ {size}, pictures/s", way, each, way != "served", robust=True)
                for size, each in zip(SIZES, speeds, strict=True)
            ]
    figure = context.figures / "batches.png"
    draw_lines(panels, figure, xlabel="batch size", ylabel="pictures/s", log_x=True)
    return TaskResult(
        task="batches",
        title="Cost over batch size",
        protocol=(
            f"400×300 pictures, two workers (or processes) of one thread, {CLIENTS} clients. "
            "Served, the size is the most that a batch may hold."
        ),
        rows=rows,
        figures={"throughput over batch size": figure},
        percent=False,
    )
