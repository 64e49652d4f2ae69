"""Copies by page-locked memory, on a machine without a GPU."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from newshelf.nn import pinned
from newshelf.nn.pinned import to_device, to_host

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def locked(monkeypatch):
    """The shapes of what was put into page-locked memory."""
    shapes: list[tuple[int, ...]] = []

    def pin_memory(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return shapes


def test_arrays_of_the_host_reach_the_gpu_by_page_locked_memory(locked):
    with FakeTensorMode():
        assert to_device(np.zeros((2, 3), dtype=np.int64), GPU).device == GPU
        assert to_device(torch.zeros(4), GPU).device == GPU
    assert locked == [(2, 3), (4,)]


def test_what_is_there_already_is_not_copied(locked):
    with FakeTensorMode():
        tensor = torch.zeros(4, device=GPU)
        assert to_device(tensor, GPU) is tensor
    here = torch.zeros(4)
    assert to_device(here, CPU) is here
    assert locked == []


def test_the_host_waits_once_for_all_outputs(monkeypatch):
    empty, waits = torch.empty, []

    class Stream:
        def synchronize(self):
            waits.append("waited")

    def locked_empty(shape, *, dtype, pin_memory):
        assert pin_memory
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(pinned.torch, "empty", locked_empty)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    outputs = [torch.arange(6.0).view(2, 3), torch.ones(2)]
    arrays = to_host(outputs, GPU)
    assert waits == ["waited"]
    for array, output in zip(arrays, outputs, strict=True):
        np.testing.assert_array_equal(array, output.numpy())
