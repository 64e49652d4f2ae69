"""Exported graphs: their files, and the interface of the runtimes that open and run them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from newshelf.config import Precision, RuntimeKind
from newshelf.errors import SetupError, WeightsError
from newshelf.nn.spec import HEADS, EncoderSpec

if TYPE_CHECKING:
    import torch


Array: TypeAlias = "NDArray[Any] | torch.Tensor"


class Runtime(Protocol):
    """Runs one graph. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Run the graph once; return its outputs by name, on the host, the caller's own.

        Inputs are numpy arrays or tensors, by name; on a GPU, tensors there are read where they
        are. Those that the graph does not use are ignored. Outputs are float32 where they are
        floats.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScorerGraphs:
    """The Siamese scorer, in its two halves."""

    projector: Runtime
    scorer: Runtime
    max_history: int
    """The most recent items of a history that it was trained to read."""


@dataclass(frozen=True, slots=True)
class Device:
    """The CPU, or one GPU. As text it is what ``torch.device`` reads."""

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0
    memory: float = 1.0
    """Share of the GPU's memory that this process may take."""

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def limit_memory(device: Device, share: float) -> None:
    """Limit torch to ``share`` of a GPU's memory, or raise ``SetupError`` without a GPU."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise SetupError(
            f"torch finds no GPU, and {device} was asked for: check the driver, or run "
            "the workers on the CPU"
        )
    torch.cuda.set_per_process_memory_fraction(share, device.index)


IMAGE_FEATURES = "image_features"
"""What a quantised encoder calls the output of its image tower."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The name of an exported graph, and of its inputs and outputs in order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def encoder_graph(spec: EncoderSpec) -> Graph:
    """The encoder: ``embedding``, then ``<head>_logits`` of each head with classes."""
    inputs = ("image", "image_row", "input_ids", "attention_mask", "text_row", "attributes")
    heads = [f"{head}_logits" for head in HEADS if spec.labels.get(head)]
    return Graph("encoder", inputs, ("embedding", *heads))


def projector_graph() -> Graph:
    """``embedding (N, 512)`` → ``vector (N, P)``."""
    return Graph("projector", ("embedding",), ("vector",))


def scorer_graph() -> Graph:
    """``history``, ``history_mask`` and ``candidates`` → ``scores`` and ``attention``."""
    return Graph("scorer", ("history", "history_mask", "candidates"), ("scores", "attention"))


_SUFFIXES: dict[RuntimeKind, tuple[str, ...]] = {
    "torchscript": (".pt",),
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".bin"),
}
"""What a graph's files end in, the one that is opened first."""


def graph_files(name: str, kind: RuntimeKind, precision: Precision = "fp32") -> tuple[str, ...]:
    """All files of graph ``name`` for a runtime and a precision, the one to open first.

    OpenVINO computes in bfloat16 from the float32 file; its weights are apart.
    """
    stem = name if precision in ("fp32", "bf16") else f"{name}.{precision}"
    return tuple(f"{stem}{suffix}" for suffix in _SUFFIXES[kind])


_PRECISIONS: dict[tuple[str, str], tuple[Precision, ...]] = {
    ("torchscript", "cpu"): ("fp32",),
    ("torchscript", "cuda"): ("fp32",),
    ("onnxruntime", "cpu"): ("fp32", "int8"),
    ("onnxruntime", "cuda"): ("fp32", "fp16"),
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
) -> Runtime:
    """Load the files of ``graph`` in an export or an unpacked archive onto ``device``.

    The runtime's library is imported only here. ``threads`` are those of one call on the CPU, but
    TorchScript's are the process's. Inputs and outputs are float32 in any ``precision``. Raises
    ``WeightsError`` if a file is missing or cannot be loaded, and ``SetupError`` for a combination
    that there is not.
    """
    _check(kind, device, precision)
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

    return OnnxRuntime(path, graph, device, threads, precision=precision)


def _check(kind: RuntimeKind, device: Device, precision: Precision) -> None:
    known = _PRECISIONS.get((kind, device.kind))
    if known is None:
        raise SetupError(
            f"{kind} does not compute on {device}: choose onnxruntime or torchscript there, "
            "or run the workers on the CPU"
        )
    if precision not in known:
        raise SetupError(
            f"{kind} does not compute in {precision} on {device}, but in {', '.join(known)}: "
            "change precision or runtime"
        )
