"""The training loop: resuming, early stopping, bf16, tracking and several processes.

It minimises an ``Objective``, a module whose ``forward`` takes a batch and returns its losses by
name, ``loss`` among them. Each epoch is seeded by (seed, name, epoch), so an interrupted run
resumes after its last saved epoch and ends with the same weights as an uninterrupted one.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from newshelf.errors import TrainingError
from newshelf.training.distributed import (
    Parallel,
    agreed,
    is_first,
    rank,
    same_buffers,
    share,
    summed,
)
from newshelf.training.run import LoopCheckpoint, Run

Batches = Callable[[int, torch.Generator], Iterable[Any]]
"""(epoch, generator) → that epoch's batches; all their randomness comes from the generator.

Every process iterates over all of them and computes its share, so a batch is best a few row
numbers, and the objective does the costly work.
"""

Schedule = torch.optim.lr_scheduler.LRScheduler


class Objective(nn.Module, ABC):
    """Module that a loop minimises; its parameters with a gradient are trained."""

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Losses of a batch by name, each a scalar; ``loss`` is minimised, all are logged."""


@dataclass
class LossHistory:
    """Losses and validation results, one entry per epoch."""

    losses: list[dict[str, float]] = field(default_factory=list)
    """Means over an epoch's batches, by name."""
    validation: list[float] = field(default_factory=list)
    """Higher is better; empty without validation."""
    best_epoch: int = -1
    """The epoch of the final weights; the last one without validation."""

    @property
    def loss(self) -> list[float]:
        """The minimised loss of each epoch."""
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
) -> LossHistory:
    """Minimise ``objective`` in place; resumes the progress that ``run`` saved under ``name``.

    Args:
        name: unique within the run, such as ``source`` or ``scorer``.
        objective: in ``train`` mode during the steps, in ``eval`` mode afterwards.
        batches: of one epoch. With n processes, each takes every n-th batch and the gradients
            are averaged, so a step learns from n batches.
        optimizer: over the objective's parameters.
        run: seed, state to resume from, tracker, console.
        epochs: maximum number.
        schedule: advanced once per batch of all processes, so its length does not depend on
            their number.
        before_epoch: called with the epoch's number, to thaw layers or set a weight; called again
            for each past epoch when a run is resumed, so it must depend on the number only.
        validate: called by the first process after each epoch, in ``eval`` mode; higher is
            better. The weights of the best epoch are restored at the end.
        patience: maximum number of epochs without improvement.
        bf16: forward and loss under bfloat16 autocast; weights and gradients stay float32.

    Raises:
        TrainingError: a loss or validation is not finite, or an epoch has no batch.
    """
    history = LossHistory()
    best: dict[str, Tensor] = {}
    progress = run.load(name)
    if progress is not None:
        history = LossHistory(**progress.history)
        best = progress.best
    first = len(history.losses)
    for past in range(first):
        if before_epoch:
            before_epoch(past)
    if progress is not None:
        _restore(progress, objective, optimizer, schedule)
        done = first == epochs or _stopped(history, patience)
        where = "was done before" if done else f"goes on after epoch {first} of {epochs}"
        run.tell(f"{run.label(name)} {where}")
    parallel = Parallel(objective)
    for epoch in track(
        range(epochs),
        run.label(name),
        console=run.console,
        transient=run.quiet,
        disable=run.quiet,
    ):
        # Iterated over, so that the bar starts where the run was interrupted.
        if epoch < first:
            continue
        if _stopped(history, patience):
            break
        if before_epoch:
            before_epoch(epoch)
        generator = _seeded(run.seed, name, epoch)
        objective.train()
        losses = _epoch(
            f"{name}, epoch {epoch + 1}",
            parallel.module(),
            batches(epoch, generator),
            optimizer,
            schedule,
            bf16,
        )
        same_buffers(objective)
        objective.eval()
        history.losses.append(losses)
        logged = dict(losses)
        if validate is None:
            history.best_epoch = epoch
        else:
            logged["validation"] = _validated(name, epoch, validate)
            if logged["validation"] > max(history.validation, default=-math.inf):
                best = {key: value.clone() for key, value in objective.state_dict().items()}
                history.best_epoch = epoch
            history.validation.append(logged["validation"])
        run.tracker.log(name, epoch, logged)
        progress = LoopCheckpoint(
            weights=objective.state_dict(),
            optimizer=optimizer.state_dict(),
            schedule=schedule.state_dict() if schedule is not None else {},
            history=vars(history),
            best=best,
        )
        run.save(name, progress)
    if best:
        objective.load_state_dict(best)
    objective.eval()
    # Later random draws must not depend on how much of this loop was resumed.
    _seeded(run.seed, name, epochs)
    return history


def _epoch(
    where: str,
    objective: nn.Module,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
    bf16: bool,
) -> dict[str, float]:
    """Run one epoch; return the mean losses over the steps of all processes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device.type
    sums: dict[str, float] = {}
    steps = 0
    for batch, taken in share(batches):
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            losses: Mapping[str, Tensor] = objective(batch)
        loss = losses["loss"]
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{where}: the loss became {loss.item()}: lower the learning rate, and look "
                "for rows that are not numbers"
            )
        loss.backward()
        optimizer.step()
        if schedule is not None:
            for _ in range(taken):
                schedule.step()
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        steps += 1
    if not steps:
        raise TrainingError(f"{where} has no batch: too few rows to learn from")
    every = summed({**sums, "": float(steps)})
    steps_of_all = every.pop("")
    return {key: value / steps_of_all for key, value in every.items()}


@torch.no_grad()
def _validated(name: str, epoch: int, validate: Callable[[], float]) -> float:
    """Return the first process's result; another process's may differ in the last digit."""
    value = float(agreed(validate() if is_first() else None))
    if not math.isfinite(value):
        raise TrainingError(f"{name}, epoch {epoch + 1}: the validation became {value}")
    return value


def _stopped(history: LossHistory, patience: int | None) -> bool:
    if patience is None or not history.validation:
        return False
    return len(history.validation) - 1 - history.best_epoch >= patience


def _seeded(seed: int, name: str, epoch: int) -> torch.Generator:
    """Seed torch for the epoch (dropout), and return a generator for its batches."""
    digest = hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).digest()
    number = int.from_bytes(digest[:7])
    torch.manual_seed(number + rank())
    return torch.Generator().manual_seed(number)


def _restore(
    progress: LoopCheckpoint,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
) -> None:
    objective.load_state_dict(progress.weights)
    optimizer.load_state_dict(progress.optimizer)
    if schedule is not None:
        schedule.load_state_dict(progress.schedule)
