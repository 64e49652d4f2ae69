"""A module as a TorchScript file, which runs on whatever device it is loaded to."""

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["write_torchscript"]


def write_torchscript(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Trace ``module``, fold its weights into the graph, and save it.

    Args:
        module: in ``eval`` mode; the sizes it reads must stay tensors' sizes, or the
            example's would be written into the graph.
        example: its inputs, in order. Dimensions that may change should have distinct
            sizes above 1, so that none passes for another or for a constant.
        path: of the ``.pt`` file.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # Deprecated upstream, but the second of the two formats that are served. Whether
        # the trace holds at other sizes is for the parity gate to find out.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(module, example, check_trace=False)
        frozen = cast(torch.jit.ScriptModule, torch.jit.freeze(traced))
    _follow_device(frozen.graph)
    frozen.save(str(path))


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
