"""A module as one ONNX file with dynamic sizes."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from newshelf.errors import SetupError
from newshelf.serving.runtimes import Graph

__all__ = ["Axes", "check_size", "write_onnx"]

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
