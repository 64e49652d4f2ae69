"""The one training loop: epochs that seed themselves, resume after a kill, and share work.

What is learned is an ``Objective``: a module whose ``forward`` takes a batch and returns
its losses by name, ``loss`` among them. Every method of this package is one, so that
resuming, early stopping, bf16, tracking and several processes are written once.

Each epoch is seeded by (seed, name, epoch). A run that was killed therefore goes on, from
the last epoch that was kept, exactly as if nothing had happened.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from newshelf.errors import TrainingError
from newshelf.transfer.run import Progress, Run

__all__ = ["Batches", "History", "Objective", "fit"]

Batches = Callable[[int, torch.Generator], Iterable[Any]]
"""(epoch, generator) → that epoch's batches; all their randomness comes from the generator."""

Schedule = torch.optim.lr_scheduler.LRScheduler


class Objective(nn.Module):
    """What a loop minimises; its parameters that ask for a gradient are trained."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Losses of a batch by name, each a scalar; ``loss`` is minimised, all are logged."""
        raise NotImplementedError


@dataclass
class History:
    """What was measured, one entry per epoch."""

    losses: list[dict[str, float]] = field(default_factory=list)
    """Means over the batches of an epoch, by name."""
    validation: list[float] = field(default_factory=list)
    """Higher is better; empty without validation."""
    best_epoch: int = -1
    """Whose weights were kept; the last one without validation."""

    @property
    def loss(self) -> list[float]:
        """The minimised loss alone."""
        return [losses["loss"] for losses in self.losses]


def fit(
    name: str,
    objective: Objective,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    run: Run,
    *,
    epochs: int,
    schedule: Schedule | None = None,
    before_epoch: Callable[[int], None] | None = None,
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
    bf16: bool = False,
    clip_norm: float | None = None,
) -> History:
    """Minimise ``objective`` in place; resumes what ``run`` kept under ``name``.

    Args:
        name: unique within the run, such as ``source`` or ``scorer``.
        objective: in ``train`` mode during the steps, in ``eval`` mode after.
        batches: of one epoch. With several processes, each takes every n-th batch.
        optimizer: over the objective's parameters.
        run: seed, state to resume from, tracker, console.
        epochs: at most.
        schedule: advanced after every step.
        before_epoch: told the epoch's number, to thaw layers or set a weight; called again
            for each past epoch when a run is resumed, so it must only depend on the number.
        validate: after each epoch, in ``eval`` mode; higher is better. The weights of the
            best epoch are restored at the end.
        patience: stop after so many epochs without a better validation.
        bf16: forward and loss under bfloat16 autocast; weights and gradients stay float32.
        clip_norm: largest norm of the gradient.

    Raises:
        TrainingError: a loss is not finite, or an epoch has no batch.
    """
    history = History()
    best: dict[str, Tensor] = {}
    progress = run.load(name)
    parallel = _parallel(objective)
    if progress is not None:
        _restore(progress, objective, optimizer, schedule)
        history = History(**progress.history)
        best = progress.best
    first = len(history.losses)
    for past in range(first):
        if before_epoch:
            before_epoch(past)
    for epoch in track(
        range(first, epochs),
        run.label(name),
        console=run.console,
        total=epochs,
        completed=first,
        transient=run.quiet,
        disable=run.quiet,
    ):
        if _stopped(history, patience):
            break
        if before_epoch:
            before_epoch(epoch)
        generator = _seeded(run.seed, name, epoch)
        objective.train()
        steps = _share(batches(epoch, generator))
        losses = _epoch(name, epoch, parallel, steps, optimizer, schedule, bf16, clip_norm)
        objective.eval()
        history.losses.append(losses)
        if validate is not None:
            with torch.no_grad():
                history.validation.append(float(validate()))
            if history.validation[-1] == max(history.validation):
                best = {key: value.clone() for key, value in objective.state_dict().items()}
                history.best_epoch = epoch
        else:
            history.best_epoch = epoch
        logged = dict(losses)
        if history.validation:
            logged["validation"] = history.validation[-1]
        run.tracker.log(name, epoch, logged)
        run.save(name, _progress(objective, optimizer, schedule, history, best))
    if best:
        objective.load_state_dict(best)
    objective.eval()
    return history


def _epoch(
    name: str,
    epoch: int,
    objective: nn.Module,
    batches: Sequence[Any],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
    bf16: bool,
    clip_norm: float | None,
) -> dict[str, float]:
    if not batches:
        raise TrainingError(f"{name}: epoch {epoch + 1} has no batch: too few rows to learn from")
    sums: dict[str, float] = {}
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            losses: Mapping[str, Tensor] = objective(batch)
        loss = losses["loss"]
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{name}: the loss became {loss.item()} in epoch {epoch + 1}: lower the "
                "learning rate, and look for rows that are not numbers"
            )
        loss.backward()
        if clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value)
    return {key: value / len(batches) for key, value in sums.items()}


def _stopped(history: History, patience: int | None) -> bool:
    if patience is None or not history.validation:
        return False
    return len(history.validation) - 1 - history.best_epoch >= patience


def _seeded(seed: int, name: str, epoch: int) -> torch.Generator:
    """Seed torch for the epoch (dropout), and return a generator for its batches."""
    digest = hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).digest()
    number = int.from_bytes(digest[:7])
    rank = dist.get_rank() if dist.is_initialized() else 0
    torch.manual_seed(number + rank)
    return torch.Generator().manual_seed(number)


def _share(batches: Iterable[Any]) -> list[Any]:
    """This process's batches: every n-th, the same number for all."""
    every = list(batches)
    if not dist.is_initialized():
        return every
    world = dist.get_world_size()
    return every[dist.get_rank() :: world][: math.floor(len(every) / world) or 1]


def _parallel(objective: Objective) -> nn.Module:
    if not dist.is_initialized():
        return objective
    return DistributedDataParallel(objective, find_unused_parameters=True)


def _progress(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
    history: History,
    best: dict[str, Tensor],
) -> Progress:
    return Progress(
        weights=objective.state_dict(),
        optimizer=optimizer.state_dict(),
        schedule=schedule.state_dict() if schedule is not None else {},
        history=vars(history),
        best=best,
    )


def _restore(
    progress: Progress,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
) -> None:
    objective.load_state_dict(progress.weights)
    optimizer.load_state_dict(progress.optimizer)
    if schedule is not None:
        schedule.load_state_dict(progress.schedule)
