"""Starts for a category's first events: a general model, and MAML from there on."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.methods.meta.event_tasks import (
    CategoryScorer,
    EventTasks,
    JointEvents,
    event_loss,
    event_part,
)
from benchmarks.methods.meta.maml import Maml
from benchmarks.transfer.new_category import (
    CANDIDATES,
    SUPPORT,
    New,
    World,
    ndcg_after,
    support_events,
)
from newshelf.transfer.loop import fit
from newshelf.transfer.run import Run

__all__ = [
    "COMPARED",
    "DRAWS",
    "INNER",
    "TILT",
    "best_rates",
    "general_model",
    "meta_trained",
    "ndcg_curve",
    "tuned",
]

COMPARED = 20
"""The general model's steps, whose NDCG is to be reached."""
INNER, DRAWS = 2, 2
TILT = 2.0
"""Of the popularity in meta-training's tasks."""
_QUERIES = 20
_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Of fine-tuning; the best on the validation categories is taken."""


def ndcg_curve(
    world: World, categories: Sequence[New], maml: Maml, steps: Sequence[int]
) -> list[float]:
    """NDCG after each of ``steps``, mean over categories and draws of the 20 events."""
    found = []
    for held in categories:
        for draw in range(DRAWS):
            support = event_part(world.embeddings, held.events, support_events(held, draw), None)
            path = enumerate(maml.trajectory(support, max(steps)))
            found.append(
                [ndcg_after(held, partial(maml.predict, p)) for at, p in path if at in steps]
            )
    mean: list[float] = np.mean(found, axis=0).tolist()
    return mean


def general_model(world: World, scratch: CategoryScorer, run: Run) -> CategoryScorer:
    """Trained on the events of the learned categories alike, from a copy of ``scratch`` on."""
    general = copy.deepcopy(scratch)
    joint = JointEvents(general)
    fit(
        "general",
        joint,
        _tasks(world).batches(tasks=8, steps=20),
        torch.optim.AdamW(joint.parameters(), lr=1e-3, weight_decay=0.01),
        run,
        epochs=10,
        validate=lambda: float(np.mean([ndcg_after(c, general) for c in world.validation])),
        patience=3,
    )
    return general


def tuned(world: World, model: CategoryScorer, *, steps: int) -> Maml:
    """Gradient descent from ``model``, at the rate that validates best after ``steps``."""

    def reached(rate: float) -> float:
        maml = Maml(model, event_loss, steps=steps, rate=rate)
        return ndcg_curve(world, world.validation, maml, (steps,))[0]

    return Maml(model, event_loss, steps=steps, rate=max(_RATES, key=reached))


def best_rates(world: World, model: CategoryScorer, steps: Sequence[int]) -> dict[int, Maml]:
    """Gradient descent from ``model``, for each number of steps at the rate that validates best."""
    runs = [Maml(model, event_loss, steps=max(steps), rate=rate) for rate in _RATES]
    curves = [ndcg_curve(world, world.validation, maml, steps) for maml in runs]
    return {step: runs[int(np.argmax([c[at] for c in curves]))] for at, step in enumerate(steps)}


def meta_trained(world: World, start: Maml, run: Run, *, first_order: bool) -> Maml:
    """MAML from a general model and the rate at which few steps are best, with learned rates."""
    maml = Maml(
        copy.deepcopy(start.model),
        event_loss,
        steps=INNER,
        rate=start.rate,
        first_order=first_order,
        learn_rates=True,
        every_step=True,
    )
    groups = [
        {"params": [*maml.model.parameters()], "lr": 3e-4},
        {"params": [maml.log_rates], "lr": 0.05},
    ]
    after = range(1, maml.steps + 1)
    fit(
        "maml-first" if first_order else "maml-second",
        maml,
        replace(_tasks(world), tilt=TILT).batches(tasks=4, steps=20),
        torch.optim.AdamW(groups, weight_decay=0.01),
        run,
        epochs=4,
        validate=lambda: float(np.mean(ndcg_curve(world, world.validation, maml, after))),
        patience=2,
    )
    return maml


def _tasks(world: World) -> EventTasks:
    return EventTasks(world.embeddings, world.train, SUPPORT, _QUERIES, CANDIDATES)
