"""Primitives of training with several processes: ranks, shared batches, sums and broadcasts.

The processes of a group all run the same code. Without a group there is one process.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def group_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process writes and prints."""
    return rank() == 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in the first process, then in the others, which find its results cached."""
    if not is_first():
        dist.barrier()
    yield
    if is_first() and group_size() > 1:
        dist.barrier()


def share(batches: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """Yield this process's batches, and the number of batches in each step of all processes.

    All processes take the same number of steps, since they wait for each other's gradients. If
    too few batches are left, some are taken twice.
    """
    size, number = group_size(), rank()
    remaining = iter(batches)
    while taken := list(islice(remaining, size)):
        yield taken[number % len(taken)], len(taken)


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sums over all processes by name; some may lack a name."""
    if group_size() == 1:
        return dict(values)
    gathered: list[Mapping[str, float]] = [{}] * group_size()
    dist.all_gather_object(gathered, dict(values))
    names = dict.fromkeys(name for one in gathered for name in one)
    return {name: sum(one.get(name, 0.0) for one in gathered) for name in names}


def agreed(value: Any) -> Any:
    """Return the first process's ``value``; the others' is ignored."""
    if group_size() == 1:
        return value
    held = [value if is_first() else None]
    dist.broadcast_object_list(held, src=0)
    return held[0]


@torch.no_grad()
def same_buffers(module: nn.Module) -> None:
    """Copy the first process's buffers, such as running means, to all."""
    if group_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


class Parallel:
    """An objective whose gradients are averaged over the processes.

    DistributedDataParallel handles the parameters that required a gradient when it was built,
    so it is rebuilt when layers are frozen or thawed.
    """

    def __init__(self, objective: nn.Module) -> None:
        self._objective = objective
        self._trained: list[str] = []
        self._wrapped: DistributedDataParallel | None = None

    def module(self) -> nn.Module:
        """Return the module to call for the loss; with one process, the objective itself."""
        if group_size() == 1:
            return self._objective
        trained = [name for name, p in self._objective.named_parameters() if p.requires_grad]
        if self._wrapped is None or trained != self._trained:
            # The old wrapper's hooks stay on the parameters until it is collected.
            self._wrapped = None
            gc.collect()
            self._wrapped = DistributedDataParallel(
                self._objective, find_unused_parameters=True, forward_sync_buffers=False
            )
            self._trained = trained
        return self._wrapped
