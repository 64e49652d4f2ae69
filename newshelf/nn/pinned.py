"""Copies between the host and a GPU by page-locked memory.

From any other memory of the host, CUDA copies in steps and lets the caller wait for each of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(value: "NDArray[Any] | Tensor", device: torch.device) -> Tensor:
    """Return ``value`` on ``device``, contiguous; a copy from the host is queued, not awaited."""
    tensor = torch.as_tensor(value)
    if tensor.device.type == "cpu" and device.type == "cuda":
        # torch keeps this memory until the copy is done.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True).contiguous()


def to_host(tensors: Sequence[Tensor], device: torch.device) -> list[NDArray[Any]]:
    """Return ``tensors`` on ``device`` as arrays; all copies are queued, then awaited once."""
    if device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    copies = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(device).synchronize()
    return [copy.numpy() for copy in copies]
