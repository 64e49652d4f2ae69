"""The gate: an exported graph computes what the eager model computes, or is not exported."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from torch import Tensor

from export.cases import Case
from export.subjects import Subject
from newshelf.errors import ParityError
from newshelf.serving.runtimes import Runtime

__all__ = ["TOLERANCE", "Comparison", "check_case", "report"]

TOLERANCE = 1e-4
"""Largest absolute difference of a float32 output; see ``limit_of`` for unbounded ones."""

_LIBRARIES = {
    "onnx": "onnx",
    "onnxruntime": "onnxruntime-gpu",
    "openvino": "openvino",
    "torch": "torch",
}


@dataclass(frozen=True)
class Comparison:
    """One output of one graph in one case."""

    graph: str
    runtime: str
    case: str
    output: str
    max_abs_diff: float
    limit: float
    passed: bool


def check_case(subject: Subject, runtimes: Mapping[str, Runtime], case: Case) -> list[Comparison]:
    """Run the eager module once and every runtime once on the same inputs.

    Raises:
        ParityError: naming graph, runtime, case and difference of the first that is
            farther off than its limit, or whose output has another shape.
    """
    with torch.inference_mode():
        result = subject.module(*case.inputs)
    expected = (result,) if isinstance(result, Tensor) else result
    named = dict(zip(subject.graph.outputs, expected, strict=True))
    inputs = dict(zip(subject.graph.inputs, case.inputs, strict=True))
    comparisons = []
    for kind, runtime in runtimes.items():
        actual = _run(runtime, inputs, f"{subject.graph.name} ({kind}), {case.name}")
        for output, tensor in named.items():
            where = f"{subject.graph.name} ({kind}), {case.name}: {output}"
            difference = _difference(tensor, actual[output], where)
            limit = limit_of(tensor, unbounded=output in subject.unbounded)
            # Written so that a NaN fails.
            passed = difference <= limit
            if not passed:
                raise ParityError(
                    f"{where} is off by {difference:.3g}, and {limit:.3g} is allowed. Nothing was "
                    "exported: the model does something that the exporter does not reproduce"
                )
            comparisons.append(
                Comparison(subject.graph.name, kind, case.name, output, difference, limit, passed)
            )
    return comparisons


def limit_of(expected: Tensor, *, unbounded: bool) -> float:
    """What an output may be off by.

    ``TOLERANCE`` for unit vectors and attention, whose numbers are at most 1. Logits and
    scores have no such bound, and float32 keeps a relative precision: there it is
    ``TOLERANCE`` times the largest absolute value of the eager output, if that is above 1.
    """
    if not unbounded or expected.numel() == 0:
        return TOLERANCE
    return TOLERANCE * max(1.0, float(expected.abs().max()))


def report(comparisons: Sequence[Comparison], model_version: str) -> dict[str, object]:
    """``parity.json``: what was compared, how far apart it was, and with which libraries."""
    return {
        "format": 1,
        "model_version": model_version,
        "passed": all(comparison.passed for comparison in comparisons),
        "tolerance": TOLERANCE,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(package) for name, package in _LIBRARIES.items()},
        "worst": worst(comparisons),
        "cases": [asdict(comparison) for comparison in comparisons],
    }


def worst(comparisons: Iterable[Comparison]) -> dict[str, float]:
    """The largest difference of each graph in each runtime, as ``"encoder onnxruntime"``."""
    found: dict[str, float] = {}
    for comparison in comparisons:
        key = f"{comparison.graph} {comparison.runtime}"
        found[key] = max(found.get(key, 0.0), comparison.max_abs_diff)
    return found


def _run(runtime: Runtime, inputs: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    try:
        return {name: torch.from_numpy(array) for name, array in runtime.run(inputs).items()}
    except Exception as error:
        # Both runtimes raise bare classes of their own; a baked-in size ends here.
        raise ParityError(f"{where} does not run: {error}. Nothing was exported") from error


def _difference(expected: Tensor, actual: Tensor, where: str) -> float:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise ParityError(
            f"{where} is {tuple(actual.shape)} {actual.dtype} where the model gives "
            f"{tuple(expected.shape)} {expected.dtype}. Nothing was exported: a dimension was "
            "taken as a constant"
        )
    if expected.numel() == 0:
        return 0.0
    return float((expected - actual).abs().max())
