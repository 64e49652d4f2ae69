"""Opening of a graph's file by the chosen runtime."""

from pathlib import Path

from newshelf.config import Precision, Provider, RuntimeKind
from newshelf.errors import SetupError, WeightsError
from newshelf.serving.runtimes.base import Device, Runtime
from newshelf.serving.runtimes.graph import Graph, graph_files

_PRECISIONS: dict[tuple[str, str], tuple[Precision, ...]] = {
    ("torchscript", "cpu"): ("fp32",),
    ("torchscript", "cuda"): ("fp32",),
    ("onnxruntime", "cpu"): ("fp32", "int8"),
    ("onnxruntime cuda", "cuda"): ("fp32", "fp16"),
    ("onnxruntime tensorrt", "cuda"): ("fp32", "bf16", "fp16"),
    ("openvino", "cpu"): ("fp32", "bf16", "int8"),
}
"""What each runtime computes in, on each kind of device."""


def open_runtime(
    kind: RuntimeKind,
    directory: Path,
    graph: Graph,
    device: Device,
    threads: int,
    precision: Precision = "fp32",
    provider: Provider = "cuda",
) -> Runtime:
    """Load the files of ``graph`` in an export or an unpacked archive onto ``device``.

    The runtime's library is imported only here. ``threads`` are those of one call on the CPU, but
    TorchScript's are the process's; ``provider`` is ONNX Runtime's on a GPU. Inputs and outputs are
    float32 in any ``precision``. Raises ``WeightsError`` if a file is missing or cannot be loaded,
    and ``SetupError`` for a combination that there is not.
    """
    _check(kind, device, precision, provider)
    path, *others = (directory / name for name in graph_files(graph.name, kind, precision))
    for file in (path, *others):
        if not file.exists():
            raise WeightsError(f"{file} is missing: export with this runtime first")
    if kind == "torchscript":
        from newshelf.serving.runtimes.torchscript import TorchScriptRuntime  # noqa: PLC0415

        return TorchScriptRuntime(path, graph, device, threads)
    if kind == "openvino":
        from newshelf.serving.runtimes.openvino import OpenVinoRuntime  # noqa: PLC0415

        return OpenVinoRuntime(path, graph, threads, precision)
    from newshelf.serving.runtimes.onnx import OnnxRuntime  # noqa: PLC0415

    return OnnxRuntime(path, graph, device, threads, precision=precision, provider=provider)


def _check(kind: RuntimeKind, device: Device, precision: Precision, provider: Provider) -> None:
    name: str = kind
    if kind == "onnxruntime" and device.kind == "cuda":
        name = f"{kind} {provider}"
    known = _PRECISIONS.get((name, device.kind))
    if known is None:
        raise SetupError(
            f"{name} does not compute on {device}: choose onnxruntime or torchscript there, "
            "or run the workers on the CPU"
        )
    if precision not in known:
        raise SetupError(
            f"{name} does not compute in {precision} on {device}, but in {', '.join(known)}: "
            "change precision or runtime"
        )
