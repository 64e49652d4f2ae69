"""A part of the training that the signals' weights are fitted on, unseen by the signals.

With time, the latest share of the events; without, a share of the baskets, near copies
(two pictures of one room, an order placed twice) staying on one side. Besides, some items
lose all their behaviour, as in DropoutNet (Volkovs et al., NeurIPS 2017): the weights must
also be right for items that nobody has taken yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from newshelf.evaluation.interactions import latest
from newshelf.evaluation.types import Case

__all__ = ["Holdout", "hold_out"]

IntArray = npt.NDArray[np.int64]

_COPY_ITEMS = 3
_COPY_SHARE = 0.75
"""Baskets are near copies when they share so many items, and that much of the smaller one."""


@dataclass(frozen=True, eq=False)
class Holdout:
    """What the signals may be made from, and the cases that their weights are fitted on."""

    sequences: list[IntArray]
    timestamps: list[IntArray] | None
    cases: list[Case]


def hold_out(
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray] | None,
    n_items: int,
    *,
    fraction: float,
    dropped: float,
    max_cases: int,
    generator: np.random.Generator,
) -> Holdout:
    """Cut off the cases.

    Args:
        sequences: item rows; one array per shopper, oldest first, or per basket.
        timestamps: epoch seconds, parallel; None for baskets.
        n_items: of the catalogue.
        fraction: share of the events, or of the baskets, that is cut off.
        dropped: share of the items with behaviour that lose it.
        max_cases: a random part of more cases is kept.
        generator: decides.
    """
    known = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *sequences]))
    lost = np.zeros(n_items, dtype=np.bool_)
    lost[generator.choice(known, int(dropped * len(known)), replace=False)] = True
    if timestamps is None:
        past, cases = _by_basket(sequences, lost, n_items, fraction, generator)
        stamps = None
    else:
        past, stamps, cases = _by_time(sequences, timestamps, lost, fraction)
    if len(cases) > max_cases:
        picked = np.sort(generator.choice(len(cases), max_cases, replace=False))
        cases = [cases[number] for number in picked]
    return Holdout(past, stamps, cases)


def _by_time(
    sequences: Sequence[IntArray],
    timestamps: Sequence[IntArray],
    lost: npt.NDArray[np.bool_],
    fraction: float,
) -> tuple[list[IntArray], list[IntArray], list[Case]]:
    cut = np.quantile(np.concatenate(timestamps), 1 - fraction, method="higher")
    past, stamps, cases = [], [], []
    for sequence, times in zip(sequences, timestamps, strict=True):
        before = times < cut
        kept = before & ~lost[sequence]
        if not kept.any():
            continue
        past.append(sequence[kept])
        stamps.append(times[kept])
        relevant = np.setdiff1d(sequence[~before], sequence[before])
        if len(relevant):
            cases.append(Case(latest(sequence[kept]), relevant))
    return past, stamps, cases


def _by_basket(
    sequences: Sequence[IntArray],
    lost: npt.NDArray[np.bool_],
    n_items: int,
    fraction: float,
    generator: np.random.Generator,
) -> tuple[list[IntArray], list[Case]]:
    groups = _near_copies(sequences, n_items)
    names = generator.permutation(np.unique(groups))
    held = np.isin(groups, names[: max(1, int(fraction * len(names)))])
    past, cases = [], []
    for sequence, is_held in zip(sequences, held, strict=True):
        if not is_held:
            kept = sequence[~lost[sequence]]
            if len(kept):
                past.append(kept)
            continue
        for place, item in enumerate(sequence):
            history = np.delete(sequence, place)
            history = history[~lost[history]]
            if len(history):
                cases.append(Case(history, np.array([item])))
    return past, cases


def _near_copies(sequences: Sequence[IntArray], n_items: int) -> IntArray:
    """``(len(sequences),)``: the number of the group of near copies each belongs to."""
    sizes = np.array([len(s) for s in sequences])
    rows = np.repeat(np.arange(len(sequences)), sizes)
    ones = np.ones(len(rows), dtype=np.float32)
    shape = (len(sequences), n_items)
    matrix = sparse.csr_array((ones, (rows, np.concatenate(sequences))), shape=shape)
    shared = (matrix @ matrix.T).tocoo()
    smaller = np.minimum(sizes[shared.row], sizes[shared.col])
    alike = (shared.data >= _COPY_ITEMS) & (shared.data >= _COPY_SHARE * smaller)
    graph = sparse.csr_array(
        (ones[:1].repeat(alike.sum()), (shared.row[alike], shared.col[alike])),
        shape=(len(sequences), len(sequences)),
    )
    groups: IntArray = sparse.csgraph.connected_components(graph, directed=False)[1]
    return groups
