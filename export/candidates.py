"""Candidates of runtime and precision: speed and quality of each on real products."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.quality import (
    VIEWS,
    Products,
    Quality,
    failures,
    measure_quality,
)
from newshelf.config import Precision, RuntimeKind
from newshelf.errors import SetupError
from newshelf.serving.runtimes.base import Device, Runtime, encoder_graph, graph_files, open_runtime
from newshelf.serving.runtimes.onnx import OnnxRuntime

_TIMED_SECONDS = 8.0


Outputs = dict[str, dict[str, NDArray[Any]]]
"""By view, by output."""


@dataclass(frozen=True)
class Candidate:
    """One way to serve the encoder."""

    runtime: RuntimeKind
    precision: Precision
    gpu: bool = False
    """Made for a GPU: here only its quality is measured, on the CPU."""


CANDIDATES = (
    Candidate("torchscript", "fp32"),
    Candidate("onnxruntime", "fp32"),
    Candidate("openvino", "fp32"),
    Candidate("openvino", "bf16"),
    Candidate("onnxruntime", "int8"),
    Candidate("openvino", "int8"),
    Candidate("onnxruntime", "fp16", gpu=True),
)


@dataclass(frozen=True)
class Tried:
    """A candidate and what became of it."""

    candidate: Candidate
    views: Sequence[Quality]
    reasons: Sequence[str]
    """Why it was refused; empty when it passed."""
    runtime: Runtime | None = None
    """None where it does not run."""
    products_per_s: float | None = None
    """Eight at a time, on every core; None for a GPU's, and for what does not run."""
    recipe: str | None = None
    """How much of the towers is in int8, and how finely."""


def reference_outputs(folder: Path, products: Products) -> Outputs:
    """Return the float32 encoder's outputs in every view that has products."""
    return _answers(_open(folder, Candidate("onnxruntime", "fp32"), products), products)


def try_candidate(
    folder: Path, candidate: Candidate, products: Products, reference: Outputs
) -> Tried:
    """Measure one candidate's quality; what goes wrong is a reason to refuse it, not an error."""
    try:
        runtime = _open(folder, candidate, products)
        outputs = _answers(runtime, products)
    except Exception as error:
        # Runtimes raise bare classes of their own where a processor lacks an operator.
        return Tried(candidate, (), (f"does not run: {error}",))
    views = [_quality(view, reference[view], outputs[view], products) for view in reference]
    reasons = [reason for quality in views for reason in failures(quality)]
    return Tried(candidate, views, reasons, runtime)


def _open(folder: Path, candidate: Candidate, products: Products) -> Runtime:
    graph = encoder_graph(products.spec)
    threads = len(os.sched_getaffinity(0))
    if candidate.gpu:
        path = folder / graph_files(graph.name, candidate.runtime, candidate.precision)[0]
        if not path.exists():
            raise SetupError(f"{path.name} could not be made")
        return OnnxRuntime(path, graph, Device(), threads)
    return open_runtime(candidate.runtime, folder, graph, Device(), threads, candidate.precision)


def _answers(runtime: Runtime, products: Products) -> Outputs:
    found: Outputs = {}
    for view in VIEWS:
        batches = [runtime.run(batch) for batch in products.batches(view)]
        if batches:
            names = batches[0]
            found[view] = {
                name: np.concatenate([batch[name] for batch in batches]) for name in names
            }
    return found


def _quality(
    view: str,
    reference: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, NDArray[Any]],
    products: Products,
) -> Quality:
    rows = next(products.rows(name) for name in VIEWS if name == view)
    labels = {head: values[rows] for head, values in products.labels.items()}
    return measure_quality(view, reference, outputs, labels)


def with_speeds(tried: Sequence[Tried], products: Products) -> list[Tried]:
    """Add what each candidate does per second with whole products.

    Alternately, and the best of each one's batches: what else the machine does then slows all
    down alike, and comes out where it does not last.
    """
    running = [one.runtime for one in tried if one.runtime and not one.candidate.gpu]
    best = dict.fromkeys(map(id, running), 0.0)
    end = time.perf_counter() + _TIMED_SECONDS
    for batch in products.batches("products"):
        for runtime in running:
            # Compiled for this shape, where a runtime does that.
            runtime.run(batch)
            start = time.perf_counter()
            runtime.run(batch)
            rate = len(batch["attributes"]) / (time.perf_counter() - start)
            best[id(runtime)] = max(best[id(runtime)], rate)
        if time.perf_counter() > end:
            break
    return [replace(one, products_per_s=best.get(id(one.runtime)) or None) for one in tried]
