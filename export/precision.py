"""Precisions of the encoder: written, measured, and kept if they pass the quality limits."""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console

from export.candidates import (
    CANDIDATES,
    Candidate,
    Tried,
    reference_outputs,
    try_candidate,
    with_speeds,
)
from export.graphs import write_float16
from export.int8 import quantise
from export.quality import (
    LEAST_COSINE,
    LEAST_LOW_COSINE,
    LEAST_OVERLAP,
    MOST_DROP,
    Products,
    draw_products,
)
from newshelf.catalog.catalog import Catalog
from newshelf.config import Precision, RuntimeKind
from newshelf.errors import ParityError, SetupError
from newshelf.files import read_json, write_json
from newshelf.nn.spec import read_spec
from newshelf.report.page import ReportTable, print_table
from newshelf.serving.runtimes.base import graph_files
from newshelf.serving.settings import TOKENIZER

PRECISION = "precision.json"
_MARKDOWN = "precision.md"
_PRODUCTS = 200
_CALIBRATING = 128
"""Further products, for the ranges of int8: it is judged on none that it was made with."""
_PROVEN = 24
"""Products for what passed the parity gate in float32, which is stricter."""
_ENCODER = "encoder"
_COLUMNS = ("runtime", "precision", "products/s", "cosine", "5 %", "overlap", "accuracy", "")


def find_precisions(graphs: Path, out: Path, catalog: Catalog, console: Console) -> None:
    """Write into ``out`` what ``export_precisions`` adds to ``graphs``, which are left alone."""
    there = [path for path in graphs.iterdir() if path.is_file()]
    for path in there:
        (out / path.name).symlink_to(path.resolve())
    export_precisions(out, catalog, console)
    for path in there:
        (out / path.name).unlink(missing_ok=True)


def export_precisions(export_dir: Path, catalog: Catalog, console: Console | None = None) -> None:
    """Write the encoder in int8 and float16, try every candidate, and report.

    Files of a precision that no candidate passes in are taken away again. Writes
    ``precision.json`` and ``precision.md``.

    Args:
        export_dir: from ``export_model``.
        catalog: the one that the model was trained on; its products and labels are measured.
        console: where the table is shown; standard error by default.

    Raises:
        SetupError: the export is not whole.
    """
    console = console or Console(stderr=True)
    spec = read_spec(export_dir).encoder
    # Without a tower nothing is calibrated.
    calibrating = 0 if spec.image is None and spec.text is None else _CALIBRATING
    drawn = draw_products(catalog, spec, export_dir / TOKENIZER, _PRODUCTS + calibrating)
    # A small catalogue is shared out in the same proportion.
    judged = len(drawn) - len(drawn) * calibrating // (_PRODUCTS + calibrating)
    products = drawn.part(slice(judged))
    with console.status("export: precisions of the encoder"):
        write_float16(export_dir / f"{_ENCODER}.onnx", export_dir / f"{_ENCODER}.fp16.onnx")
        tried = _try_all(export_dir, products, drawn.part(slice(judged, None)))
    _remove_refused(export_dir, tried)
    report = _report(tried, encoder_digest(export_dir), len(products))
    write_json(export_dir / PRECISION, report)
    (export_dir / _MARKDOWN).write_text(_markdown(report), encoding="utf-8")
    print_precisions(report, console)


def encoder_digest(export_dir: Path) -> str:
    """Return the digest of the float32 encoder that a report is about."""
    with (export_dir / f"{_ENCODER}.onnx").open("rb") as graph:
        return hashlib.file_digest(graph, "sha256").hexdigest()[:12]


def choose(
    export_dir: Path,
    runtime: RuntimeKind | Literal["auto"],
    precision: Precision | Literal["auto"],
    *,
    gpu: bool = False,
) -> tuple[RuntimeKind, Precision]:
    """Runtime and precision for an archive.

    ``auto`` takes the fastest that passed on the CPU of the export; with a GPU, float16 by
    ONNX Runtime there, or float32 where that did not pass. What is named is a demand.

    Args:
        export_dir: with its report; without one only float32 is known to be right.
        runtime: of ``[archive]``.
        precision: of ``[archive]``.
        gpu: whether this machine, which archives for itself, has one.

    Raises:
        ParityError: nothing that was asked for passed; with its numbers, and what did pass.
        SetupError: the report is about another encoder than that of the export.
    """
    path = export_dir / PRECISION
    if not path.exists():
        if precision not in ("auto", "fp32"):
            raise SetupError(f"{path} is missing: export again to have {precision} measured")
        return ("onnxruntime" if runtime == "auto" else runtime), "fp32"
    report = read_json(path)
    if report.get("encoder") != encoder_digest(export_dir):
        raise SetupError(f"{path} is about another encoder: export again")
    rows: list[dict[str, Any]] = report["candidates"]
    if gpu and precision == "auto" and runtime in ("auto", "onnxruntime"):
        passed = [row["precision"] for row in report["on_a_gpu"] if row["passed"]]
        return "onnxruntime", cast(Precision, passed[0]) if passed else "fp32"
    # A GPU's have no speed here, so only who names their precision gets one.
    known = rows if precision == "auto" else [*rows, *report["on_a_gpu"]]
    asked = [
        row
        for row in known
        if runtime in ("auto", row["runtime"]) and precision in ("auto", row["precision"])
    ]
    best = _fastest(asked)
    if best is None:
        raise ParityError(_refusal(runtime, precision, asked, rows))
    return cast(RuntimeKind, best["runtime"]), cast(Precision, best["precision"])


def print_precisions(report: Mapping[str, Any], console: Console) -> None:
    """``precision.json`` as a table; the worst view of each candidate."""
    rows = _rows(report)
    table = ReportTable(
        f"encoder, {report['products']} products on {report['cores']} cores, 8 at a time",
        _COLUMNS,
        [_cells(row) for row in rows],
        text_columns=(1, len(_COLUMNS) - 1),
        dim_rows=[at for at, row in enumerate(rows) if row["reasons"]],
    )
    print_table(table, console)


def _try_all(export_dir: Path, products: Products, calibrating: Products) -> list[Tried]:
    few = products.part(slice(_PROVEN))
    references = {len(some): reference_outputs(export_dir, some) for some in (few, products)}

    def attempt(candidate: Candidate) -> Tried:
        some = few if candidate.precision == "fp32" else products
        return try_candidate(export_dir, candidate, some, references[len(some)])

    source = export_dir / f"{_ENCODER}.onnx"
    quantised = quantise(source, source.with_suffix(".int8.onnx"), calibrating, attempt)
    found = {one.candidate: one for one in quantised}
    tried = [found.get(candidate) or attempt(candidate) for candidate in CANDIDATES]
    return with_speeds(tried, few)


def _remove_refused(export_dir: Path, tried: Sequence[Tried]) -> None:
    kept = {name for one in tried if not one.reasons for name in _files(one)}
    for name in {name for one in tried for name in _files(one)} - kept:
        if name != f"{_ENCODER}.onnx":
            (export_dir / name).unlink(missing_ok=True)


def _files(tried: Tried) -> tuple[str, ...]:
    return graph_files(_ENCODER, tried.candidate.runtime, tried.candidate.precision)


def _report(tried: Sequence[Tried], encoder: str, products: int) -> dict[str, Any]:
    packages = {"onnxruntime": "onnxruntime-gpu", "openvino": "openvino", "torch": "torch"}
    return {
        "format": 1,
        "encoder": encoder,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(package) for name, package in packages.items()},
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "products": products,
        "limits": {
            "cosine": LEAST_COSINE,
            "cosine_low": LEAST_LOW_COSINE,
            "overlap": LEAST_OVERLAP,
            "accuracy_drop": MOST_DROP,
        },
        "candidates": [_row(one) for one in tried if not one.candidate.gpu],
        "on_a_gpu": [_row(one) for one in tried if one.candidate.gpu],
    }


def _row(tried: Tried) -> dict[str, Any]:
    speed = tried.products_per_s
    return {
        "runtime": tried.candidate.runtime,
        "precision": tried.candidate.precision,
        "recipe": tried.recipe,
        "passed": not tried.reasons,
        "reasons": list(tried.reasons),
        "products_per_s": None if speed is None else round(speed, 1),
        "views": [asdict(view) for view in tried.views],
    }


def _fastest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    passed = (row for row in rows if row["passed"])
    return max(passed, key=lambda row: row["products_per_s"] or 0.0, default=None)


def _refusal(
    runtime: str,
    precision: str,
    asked: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    results = "; ".join(
        f"{row['runtime']} {row['precision']}: {', '.join(row['reasons'])}" for row in asked
    )
    best = _fastest(rows)
    advice = (
        "export again"
        if best is None
        else f"the fastest that passed is runtime = {best['runtime']!r}, precision = "
        f"{best['precision']!r}; 'auto' takes it"
    )
    return (
        f"[archive] runtime = {runtime!r}, precision = {precision!r} is not served: "
        f"{results or 'there is no such candidate'}. Instead, {advice}"
    )


def _markdown(report: Mapping[str, Any]) -> str:
    lines = [_COLUMNS, ("---", "---", *["---:"] * 5, "---")]
    lines += [_cells(row) for row in _rows(report)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"# Precisions of the encoder {report['encoder']}\n\n"
        f"{report['products']} products of the catalogue, 8 at a time on {report['cores']} cores. "
        "Cosine (mean and 5th percentile), share of the ten nearest that stay, and points of "
        "accuracy, each against float32 and in the worst of three views: whole products, "
        "pictures alone, texts alone.\n\n"
        f"{table}\n"
    )


def _rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*report["candidates"], *report["on_a_gpu"]]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    views = row["views"]
    speed = row["products_per_s"]
    overlaps = [view["overlap"] for view in views if view["overlap"] is not None]
    drops = [view["accuracy_drop"] for view in views if view["accuracy_drop"] is not None]
    return (
        row["runtime"],
        row["precision"],
        "–" if speed is None else f"{speed:.0f}",
        f"{min(view['cosine_mean'] for view in views):.4f}" if views else "–",
        f"{min(view['cosine_low'] for view in views):.4f}" if views else "–",
        f"{min(overlaps):.3f}" if overlaps else "–",
        f"{0.0 - max(drops):+.1f}" if drops else "–",
        "; ".join(row["reasons"]) or "passed" + (f": {row['recipe']}" if row["recipe"] else ""),
    )
