"""Writers of graphs: TorchScript, ONNX with dynamic sizes, OpenVINO's format, and float16."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.int8_graph import quietly
from newshelf.errors import SetupError
from newshelf.serving.runtimes.base import Graph


def write_torchscript(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Trace ``module``, fold its weights into the graph, and save it.

    Args:
        module: in ``eval`` mode; the sizes it reads must stay tensors' sizes, or the
            example's would be written into the graph.
        example: its inputs, in order. Dimensions that may change should have distinct
            sizes above 1, so that none passes for another or for a constant.
        path: of the ``.pt`` file.
    """
    with torch.no_grad(), warnings.catch_warnings(), _fused_attention(module):
        # Deprecated upstream, but the second of the two formats that are served. Whether
        # the trace holds at other sizes is for the parity gate to find out.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(module, example, check_trace=False)
        frozen = cast(torch.jit.ScriptModule, torch.jit.freeze(traced))
    _follow_device(frozen.graph)
    frozen.save(str(path))


@contextmanager
def _fused_attention(module: nn.Module) -> Iterator[None]:
    """Let transformers attend by one kernel, of which a trace keeps the sizes dynamic."""
    attending = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    for part in attending:
        part.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        for part in attending:
            part.set_attn_implementation("eager")


def _follow_device(graph: Any) -> None:
    """Let the graph take its device from its last input.

    A trace writes down the device of each tensor that the module makes by itself, such as
    the attention masks of transformers; on another device those would not meet the rest.
    """
    constants = [
        node
        for node in graph.findAllNodes("prim::Constant")
        if str(node.output().type()) == "Device"
    ]
    if not constants:
        return
    last_input = list(graph.inputs())[-1]
    device = graph.create("prim::device", [last_input], 1)
    device.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(device)
    for node in constants:
        node.output().replaceAllUsesWith(device.output())
        node.destroy()
    graph.lint()


Axes = Mapping[int, str]
"""The dynamic dimensions of one input, each with its name; equal names have equal sizes."""

_LARGEST_BYTES = 2**31 - 2**24
"""A protobuf message ends at 2 GiB; the rest is room for the graph itself."""


def write_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    graph: Graph,
    axes: Sequence[Axes],
    path: Path,
) -> None:
    """Export ``module`` with the exporter that is built on ``torch.export``.

    Args:
        module: in ``eval`` mode.
        example: its inputs, in order. A dynamic dimension must be at least 2 here, since
            0 and 1 are taken as constants; at run time it may be 1.
        graph: the names of inputs and outputs. Inputs that the module does not read are
            left out of the file.
        axes: for each input its dynamic dimensions.
        path: of the ``.onnx`` file; weights are inside.

    Raises:
        SetupError: the weights do not fit into one file.
    """
    check_size(module, graph.name)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            input_names=list(graph.inputs),
            dynamic_shapes=tuple(dict(dimensions) for dimensions in axes),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise SetupError(f"the exporter gave no program for {graph.name}")
    _tidy(program.model.graph, graph.outputs)
    program.save(str(path), external_data=False)


def check_size(module: nn.Module, name: str) -> None:
    """Refuse what one ONNX file cannot hold, before any time is spent on it.

    Raises:
        SetupError: with the size.
    """
    size = sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
    if size > _LARGEST_BYTES:
        raise SetupError(
            f"the {name} has {size / 1e9:.1f} GB of weights, and one ONNX file holds at most "
            "2 GB: choose smaller towers in [image] and [text]"
        )


def _tidy(graph: Any, outputs: Sequence[str]) -> None:
    """Name the outputs, drop unread inputs, and forget where the sources lie."""
    for node in graph:
        # The exporter keeps a stack trace per node, with this machine's paths.
        node.metadata_props.clear()
        for value in node.outputs:
            # Two values of one name make a file that no runtime loads, and an inner value
            # may well be called "embedding".
            if value.name in outputs:
                value.name = f"inner_{value.name}"
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about itself; errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def write_openvino(source: Path, path: Path) -> None:
    """Convert ``source``, in the same arithmetic.

    OpenVINO copies the weights of an ONNX file into each process; those of its own format it
    maps, so that all processes of a machine share them.

    Args:
        source: the ``.onnx`` file.
        path: of the ``.xml`` file; the weights go next to it, into one of the same name that
            ends in ``.bin``.
    """
    # Only here: a graph for a GPU is written where OpenVINO is not installed, too.
    import openvino  # noqa: PLC0415

    from newshelf.serving.runtimes.openvino import shared_core  # noqa: PLC0415

    # New files: whoever has the old ones mapped keeps them.
    for old in (path, path.with_suffix(".bin")):
        old.unlink(missing_ok=True)
    openvino.save_model(shared_core().read_model(str(source)), path, compress_to_fp16=False)


def write_float16(source: Path, path: Path) -> None:
    """Convert weights and arithmetic to float16; inputs and outputs stay float32."""
    with quietly():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), path)
