"""Signals of the ranking: co-occurrence, neighbours, popularity; the split to weight them on.

Co-occurrence becomes sparse item-to-item links. With ``X`` the incidence matrix of the training
data (one row per shopper or basket), whose entries halve every ``half_life_days``::

    P = (XᵀX + λI)⁻¹,  B_ij = -P_ij / P_jj (i ≠ j)        EASE (Steck, WWW 2019)

``newshelf.nn.blend`` propagates them to similar items, which the neighbours by content give.
Popularity is the part of a score that does not depend on the history.

The signals' weights are fitted on a part of the training data that the signals have not seen:
with time, the latest share of the events; without, a share of the baskets, near-duplicates
(two pictures of one room, an order placed twice) staying on one side. In addition, some items
lose all their behaviour, as in DropoutNet (Volkovs et al., NeurIPS 2017): the weights must
also be right for items that nobody has taken yet.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from newshelf.catalog.interactions import Sequences
from newshelf.config import BlendSettings
from newshelf.evaluation.baselines import ease_weights, incidence, keep_strongest
from newshelf.evaluation.splits import Holdout, capped, cut_at
from newshelf.evaluation.types import Case, FloatArray, IntArray

_DAY_S = 86_400
_WINDOWS_DAYS = (14, 30, 90)
_LEAST_KNOWN = 0.5
"""Added to an item's known shoppers, so that its first newcomers count."""
_COPY_ITEMS = 3
_COPY_SHARE = 0.75
"""Minimum number of shared items of near-duplicate baskets, and their share of the smaller."""


def bound_newcomers(data: Sequences, days: float) -> Sequences:
    """Return the data with weights by which newcomers alone make no item popular.

    Shoppers are newcomers for ``days`` from their first interaction. Of those who first come to an
    item in the same 14 days, the newcomers together count at most one standard deviation (Poisson)
    above their share among all items, given the others::

        x + √x,    x = (others + 1/2) · newcomers of all items / others of all items

    All interactions of a shopper with an item are weighed alike. Baskets are not bounded.
    """
    if data.timestamps is None or not data.sequences:
        return data
    lengths = [len(sequence) for sequence in data.sequences]
    shopper = np.repeat(np.arange(len(lengths)), lengths)
    items, stamps, width = data.items, np.concatenate(data.timestamps), data.items.max() + 1
    _, met, pair = np.unique(shopper * width + items, return_index=True, return_inverse=True)
    since_s = stamps[met] - np.array([times[0] for times in data.timestamps])[shopper[met]]
    is_new = since_s < days * _DAY_S
    period = (stamps.max() - stamps[met]) // (_WINDOWS_DAYS[0] * _DAY_S)
    _, cell = np.unique(period * width + items[met], return_inverse=True)
    (every_new, new), (every_other, others) = (
        [np.bincount(of, among)[of] for of in (period, cell)] for among in (is_new, ~is_new)
    )
    with np.errstate(divide="ignore"):
        usual = (others + _LEAST_KNOWN) * every_new / every_other
    limit = usual + np.sqrt(usual)
    bound = np.where(is_new, np.minimum(1, limit / np.maximum(new, 1)), 1)[pair]
    if bound.min() == 1:
        return data
    bound *= 1 if data.weights is None else np.concatenate(data.weights)
    scaled = np.split((bound / bound.mean()).astype(np.float32), np.cumsum(lengths)[:-1])
    return replace(data, weights=scaled)


def incidence_matrix(data: Sequences, n_items: int, half_life_days: float) -> sparse.csr_array:
    """Return the interactions as ``(sequences, n_items)`` float64 weights.

    The weight is that of the data, or 1, for the latest interaction of all and halves every
    ``half_life_days``. Of repeated interactions with an item, the largest weight counts.
    """
    rows = np.repeat(np.arange(len(data.sequences)), [len(s) for s in data.sequences])
    items = data.items
    weights = np.ones(len(items))
    if data.timestamps is not None:
        stamps = np.concatenate([np.empty(0, dtype=np.int64), *data.timestamps])
        age_days = (stamps.max(initial=0) - stamps) / _DAY_S
        weights = 0.5 ** (age_days / half_life_days)
    if data.weights is not None:
        weights = weights * np.concatenate([np.empty(0), *data.weights])
    return _strongest(rows, items, weights, (len(data.sequences), n_items))


def _strongest(
    rows: IntArray, items: IntArray, weights: npt.NDArray[Any], shape: tuple[int, int]
) -> sparse.csr_array:
    """Return the largest weight of each row and item."""
    cells, place = np.unique(rows * shape[1] + items, return_inverse=True)
    largest = np.zeros(len(cells))
    np.maximum.at(largest, place, weights)
    return sparse.csr_array((largest, np.divmod(cells, shape[1])), shape=shape)


def direct_links(
    incidence: sparse.csr_array, *, ridge: float, max_items: int, per_item: int
) -> sparse.csr_array:
    """Return EASE's weights among the items with interactions.

    The entries of ``X`` are the square roots of the incidence weights, so that ``XᵀX`` has
    the weights themselves on its diagonal.

    Args:
        incidence: from ``incidence_matrix``.
        ridge: λ in units of the mean of that diagonal, so that one value fits shops
            with many interactions per item and with few.
        max_items: number of the most frequent items to link, the size of the matrix to invert.
        per_item: number of entries per row to keep, the largest by absolute value.

    Returns:
        ``(N, N)`` float32.
    """
    matrix = incidence.sqrt().tocsc()
    frequency = np.asarray(incidence.sum(axis=0)).ravel()
    among = np.sort(np.argsort(-frequency, kind="stable")[:max_items])
    among = among[frequency[among] > 0]
    size = len(frequency)
    if len(among) == 0:
        return sparse.csr_array((size, size), dtype=np.float32)
    part = matrix[:, among]
    gram = (part.T @ part).toarray().astype(np.float64)
    dense = ease_weights(gram, ridge * float(np.diag(gram).mean()))
    keep_strongest(dense, per_item)
    local = sparse.coo_array(dense)
    return sparse.csr_array(
        (local.data, (among[local.row], among[local.col])), shape=(size, size), dtype=np.float32
    )


def popularity_features(data: Sequences, neighbours: sparse.csr_array) -> dict[str, FloatArray]:
    """Return, by name, ``(N,)`` float32 popularity, its neighbours', age, and whether it is new.

    With timestamps: ``log(1 + shoppers)`` of the last 14, 30 and 90 days (a trend is their
    difference), and ``log(1 + days since the first interaction)``. Without: ``log(1 + baskets)``.
    A new item has 0 everywhere and ``new`` = 1, whose weight makes up for it. With weights,
    a shopper or basket counts by its strongest interaction with the item.
    ``popularity_alike`` is the popularity of the item's neighbours.

    ``neighbours`` is ``(N, N)``, row-stochastic.
    """
    size = neighbours.shape[0]
    items = data.items
    owner = np.repeat(np.arange(len(data.sequences)), [len(s) for s in data.sequences])
    known = np.bincount(items, minlength=size) > 0
    strength = np.ones(len(items)) if data.weights is None else np.concatenate(data.weights)
    features: dict[str, FloatArray] = {"new": (~known).astype(np.float32)}

    def shoppers(among: npt.NDArray[np.bool_]) -> FloatArray:
        shape = len(data.sequences), size
        strongest = _strongest(owner[among], items[among], strength[among], shape)
        return np.bincount(strongest.indices, strongest.data, minlength=size).astype(np.float32)

    if data.timestamps is None:
        counts = shoppers(np.ones(len(items), dtype=np.bool_))
        features["popularity"] = np.log1p(counts)
    else:
        stamps = np.concatenate([np.empty(0, dtype=np.int64), *data.timestamps])
        now = int(stamps.max(initial=0))
        for days in _WINDOWS_DAYS:
            recent = shoppers(stamps > now - days * _DAY_S)
            features[f"popularity_{days}d"] = np.log1p(recent)
        counts = np.expm1(features["popularity_30d"])
        first = np.full(size, now)
        np.minimum.at(first, items, stamps)
        features["age"] = np.log1p((now - first) / _DAY_S).astype(np.float32)
    features["popularity_alike"] = np.log1p(neighbours @ counts).astype(np.float32)
    return features


def hold_out(
    data: Sequences, n_items: int, settings: BlendSettings, generator: np.random.Generator
) -> Holdout:
    """Split the interactions into training data and cases.

    The cases take a share of the events or of the baskets, and are sampled if they are too many. A
    share of the items with interactions loses them.
    """
    fraction, dropped = settings.held_out, settings.dropped_items
    known = np.unique(data.items)
    without = np.zeros(n_items, dtype=np.bool_)
    without[generator.choice(known, int(dropped * len(known)), replace=False)] = True
    if data.timestamps is None:
        held = _by_basket(data.sequences, without, fraction, generator)
    else:
        cut = np.quantile(np.concatenate(data.timestamps), 1 - fraction, method="higher")
        held = cut_at(data, float(cut), without)
    return held._replace(cases=capped(held.cases, settings.max_cases, generator)[0])


def _by_basket(
    sequences: Sequence[IntArray],
    without: npt.NDArray[np.bool_],
    fraction: float,
    generator: np.random.Generator,
) -> Holdout:
    groups = _near_duplicates(sequences, len(without))
    names = generator.permutation(np.unique(groups))
    held = np.isin(groups, names[: max(1, int(fraction * len(names)))])
    past, cases = [], []
    for sequence, is_held in zip(sequences, held, strict=True):
        if not is_held:
            kept = sequence[~without[sequence]]
            if len(kept):
                past.append(kept)
            continue
        for place, item in enumerate(sequence):
            history = np.delete(sequence, place)
            history = history[~without[history]]
            if len(history):
                cases.append(Case(history, np.array([item])))
    return Holdout(Sequences(past), cases)


def _near_duplicates(sequences: Sequence[IntArray], n_items: int) -> IntArray:
    """``(len(sequences),)``: the number of each basket's group of near-duplicates."""
    sizes = np.array([len(s) for s in sequences])
    matrix = incidence(sequences, n_items)
    shared = (matrix @ matrix.T).tocoo()
    smaller = np.minimum(sizes[shared.row], sizes[shared.col])
    shared.data *= (shared.data >= _COPY_ITEMS) & (shared.data >= _COPY_SHARE * smaller)
    shared.eliminate_zeros()
    groups: IntArray = sparse.csgraph.connected_components(shared, directed=False)[1]
    return groups
