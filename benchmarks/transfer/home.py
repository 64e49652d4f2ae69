"""Rooms: which product completes one, among products most of which were in no room before."""

from dataclasses import replace

import numpy as np

from benchmarks.transfer.context import Context
from benchmarks.transfer.merged import Merged, merged
from benchmarks.transfer.ranking import Measure, by_fusion, embedded, rankers, rows_of
from benchmarks.transfer.result import Goal, TaskResult
from newshelf.evaluation.interactions import Interactions, basket_interactions
from newshelf.evaluation.types import BoolArray, Case, Split

__all__ = ["run"]

_K = 10
_KEPT_BACK = 0.2


def run(context: Context) -> TaskResult:
    """Leave each item of a kept-back room out once."""
    source = merged(context, "home")
    rooms = basket_interactions(source.catalog)
    if rooms is None:
        raise ValueError("home has no baskets")
    splits: dict[str, list[Split]] = {"all": [], "cold": []}
    fitted, kinds = [], []
    for seed in context.seeds:
        context.console.print(f"home, seed {seed}")
        every, cold = _splits(rooms, _held(source, rooms, seed))
        splits["all"].append(every)
        splits["cold"].append(cold)
        embeddings, features = embedded(context, source.catalog, seed)
        simple, own = rankers(context, source.catalog, every, embeddings, features, seed)
        fitted.append((simple, own))
        kinds.append(((), by_fusion(context, source.catalog, every, seed, own[1])))
    measures = [
        Measure("Recall@10, cold items", "cold", lambda metrics: metrics.recall[_K]),
        Measure("Recall@10, all items", "all", lambda metrics: metrics.recall[_K]),
        Measure("NDCG@10, all items", "all", lambda metrics: metrics.ndcg[_K]),
    ]
    fusion = [replace(measure, name=f"{measure.name}, by fusion") for measure in measures]
    cases = [len(split.cases) for split in splits["all"]]
    cold_cases = [len(split.cases) for split in splits["cold"]]
    return TaskResult(
        task="home",
        title="home: complete a room",
        protocol=(
            f"{len(source.catalog.items)} products with picture and text, {len(rooms.sequences)} "
            "rooms. "
            + (
                "The kept-back rooms are tested."
                if source.has_kept_back
                else "A fifth of the scenes is kept back, another one for each seed; rooms of "
                "one scene stay together."
            )
            + f" Each item of a kept-back room is left out once ({cases} cases; {cold_cases} of "
            "them ask for an item that is in no training room), and all items are ranked. The "
            "weights of the signals are fitted on a part of the training rooms. *By fusion*: "
            f"newshelf with each kind of fusion; {context.settings.fusion.kind} is the setting of "
            "the other rows."
        ),
        rows=rows_of(measures, splits, fitted, _K) + rows_of(fusion, splits, kinds, _K),
        goals=[Goal("Recall@10, cold items", 0.065), Goal("Recall@10, all items", 0.090)],
        percent=False,
    )


def _held(source: Merged, rooms: Interactions, seed: int) -> BoolArray:
    """``(rooms,)``: those that are tested."""
    if source.has_kept_back and source.catalog.baskets is not None:
        # Rooms are numbered in the order in which the table names them first.
        names = source.catalog.baskets["basket_id"]
        late = names[source.kept_back_baskets].unique()
        held: BoolArray = np.isin(names.unique(), late)
        return held
    scenes = np.random.default_rng(seed).permutation(np.unique(rooms.groups))
    chosen: BoolArray = np.isin(rooms.groups, scenes[: int(_KEPT_BACK * len(scenes))])
    return chosen


def _splits(rooms: Interactions, held: BoolArray) -> tuple[Split, Split]:
    """All cases, and those that ask for an item of no training room; one training."""
    train = [room for room, is_held in zip(rooms.sequences, held, strict=True) if not is_held]
    known = np.zeros(rooms.n_items, dtype=np.bool_)
    known[np.concatenate(train)] = True
    cases = [
        Case(np.delete(room, place), np.array([item]), group=int(group))
        for room, group, is_held in zip(rooms.sequences, rooms.groups, held, strict=True)
        if is_held and len(room) > 1
        for place, item in enumerate(room)
    ]
    cold = [case for case in cases if not known[case.relevant].any()]
    every = np.ones(rooms.n_items, dtype=np.bool_)
    return (
        Split("all", train, cases, every, "every left-out item"),
        Split("cold", train, cold, every, "left-out items of no training room"),
    )
