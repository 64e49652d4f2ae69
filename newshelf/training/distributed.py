"""Several processes that train one model: what each of them does, and what they agree on.

``torchrun`` starts the processes; all of them run the same code. Without a group there is
one process, and everything here is a step aside.
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
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def group_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process is the one that writes and prints."""
    return rank() == 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do the block by itself, then the others, who find it cached."""
    if not is_first():
        dist.barrier()
    yield
    if is_first() and group_size() > 1:
        dist.barrier()


def share(batches: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """This process's batches, and how many the processes take together in that step.

    All take the same number of steps, or the last gradient would be waited for in vain:
    where too few batches are left, some are taken twice.
    """
    size, number = group_size(), rank()
    every = iter(batches)
    while taken := list(islice(every, size)):
        yield taken[number % len(taken)], len(taken)


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """The sums over all processes by name; a name may be missing in some."""
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
    """Give all processes the first one's buffers, such as running means."""
    if group_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


class Parallel:
    """An objective whose gradients are averaged over the processes.

    DistributedDataParallel only knows the parameters that asked for a gradient when it was
    built, so it is built again when layers were frozen or thawed.
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
            # The old one's hooks sit on the parameters until it is gone.
            self._wrapped = None
            gc.collect()
            self._wrapped = DistributedDataParallel(
                self._objective, find_unused_parameters=True, forward_sync_buffers=False
            )
            self._trained = trained
        return self._wrapped
