"""Analysis of an assortment by style and material: clusters and gaps.

Rows are products in one order. The *interest* in a product is the number of shoppers with any
event on it, as repeated events of one shopper are not independent.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from newshelf.evaluation.types import BoolArray, FloatArray, IntArray

ATTRIBUTES = ("product_type", "material", "color", "style")
LEVEL = 0.05
"""Probability of any false finding in one table, shared by its tests (Bonferroni)."""
LEAST_INTEREST = 30
"""Interest in a value, or in a combination, below which nothing is claimed."""

_MOST_CLUSTERS, _LEAST_PER_CLUSTER = 20, 10
_SAMPLE, _COMPONENTS, _REFERENCES = 2000, 32, 3
_ABOVE_CHANCE = 0.02
_NAMED_SHARE, _NAME_LEVEL = 0.3, 1e-3
_MOST_STOCKED = 3
"""A combination of at most as many products in stock, or of half as many as its margins predict, is
a gap if its interest is high."""
_LEAST_LINKS, _MOST_UNOFFERED = 2, 20
_WEEK_S, _LEAST_WEEKS, _MOST_VALUES = 7 * 86_400, 3, 6
_LEAST_REPEATED = 10
"""Products in excess of the combinations that they share, to know how much they differ."""


def main_values(facts: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """Return a column per attribute with each product's most certain value, NaN where unknown."""
    known = facts[facts["attribute"].isin(ATTRIBUTES)]
    best = known.sort_values("confidence", ascending=False, kind="stable")
    best = best.drop_duplicates(["item_id", "attribute"])
    table = best.pivot_table(index="item_id", columns="attribute", values="value", aggfunc="first")
    return table.reindex(index=list(ids), columns=list(ATTRIBUTES)).reset_index(drop=True)


class Clusters(NamedTuple):
    """Groups of products with similar embeddings."""

    labels: IntArray
    """(N,) numbers of clusters, the largest first."""
    silhouette: float
    by_chance: float
    """Largest silhouette in Gaussian data of the same covariance, which has no clusters."""
    clear: bool
    """The silhouette is above chance."""


def find_clusters(
    embeddings: FloatArray, *, seed: int = 0, track: Callable[[range], Iterable[int]] = iter
) -> Clusters | None:
    """Cluster (N, D) embeddings by k-means; the silhouette selects the number of clusters.

    ``track`` reports progress over the numbers that are tried. None with too few products.
    """
    most = min(_MOST_CLUSTERS, len(embeddings) // _LEAST_PER_CLUSTER)
    if most < 2:  # noqa: PLR2004
        return None
    random, width = np.random.default_rng(seed), min(_COMPONENTS, *embeddings.shape)
    points = PCA(width, random_state=seed).fit_transform(embeddings)
    sample = random.permutation(len(points))[:_SAMPLE]
    clouds = random.normal(0, points.std(axis=0), (_REFERENCES, len(sample), width))
    best, number, by_chance = -1.0, 0, -1.0
    for count in track(range(2, most + 1)):
        quality = _silhouette(points[sample], count, seed)
        best, number = max((best, number), (quality, count))
        by_chance = max(by_chance, *(_silhouette(cloud, count, seed) for cloud in clouds))
    labels = KMeans(number, n_init=10, random_state=seed).fit_predict(points)
    order = np.argsort(-np.bincount(labels, minlength=number), kind="stable")
    return Clusters(np.argsort(order)[labels], best, by_chance, best > by_chance + _ABOVE_CHANCE)


def _silhouette(points: "npt.NDArray[np.floating[Any]]", count: int, seed: int) -> float:
    labels = KMeans(count, n_init=2, random_state=seed).fit_predict(points)
    return float(silhouette_score(points, labels)) if len(np.unique(labels)) > 1 else -1.0


def nearest(embeddings: FloatArray, centre: FloatArray, limit: int) -> tuple[IntArray, FloatArray]:
    """Return the rows of (N, D) embeddings that are nearest to (D,), and their cosines."""
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(centre)
    cosines = embeddings @ centre / np.maximum(lengths, 1e-12)
    rows = np.argsort(-cosines, kind="stable")[:limit]
    return rows, cosines[rows]


def cluster_name(values: pd.DataFrame, inside: BoolArray) -> str:
    """Return the values that are most over-represented inside, at most one per attribute."""
    best: dict[str, tuple[float, str]] = {}
    for name in ATTRIBUTES:
        total, drawn = values[name].value_counts(), values[name][inside].value_counts()
        size, known = int(total.sum()), int(drawn.sum())
        for value, count in drawn[drawn >= _NAMED_SHARE * inside.sum()].items():
            chance = stats.hypergeom.sf(count - 1, size, total[value], known)
            if chance < _NAME_LEVEL:
                excess = count / known - total[value] / size
                best[name] = max(best.get(name, (0.0, "")), (excess, str(value)))
    return " · ".join(value for _, value in best.values()) or "mixed"


def interest(events: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """Return views, purchases, and shoppers with any event, of each product."""
    shoppers = events.drop_duplicates(["user_id", "item_id"])["item_id"].value_counts()
    types = pd.crosstab(events["item_id"], events["event_type"].astype(str))
    table = types.reindex(columns=["view", "purchase"], fill_value=0).assign(shoppers=shoppers)
    return table.reindex(list(ids), fill_value=0).fillna(0).astype(int).reset_index(drop=True)


def find_gaps(
    values: pd.DataFrame, attribute: str, counts: IntArray, in_stock: BoolArray
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return combinations of type and value that are wanted and hardly stocked, or not offered.

    Both tables begin with the surest and have ``product_type`` and ``value``. The first has
    ``products``, ``in_stock``, ``interest``, ``expected``, and ``low`` and ``high`` of ``interest /
    expected``. Expected is a Poisson regression on type and value. The interval is widened by how
    much more products of one combination differ than by chance. The second has the predicted
    interest in ``each`` product, and ``low`` and ``high``: times the ratios of interest and
    prediction that nine in ten offered combinations have. A combination is in it if ``low`` is
    above the mean product's interest. ``counts`` (N,) is the interest in each product. None with
    too little data.
    """
    keys = ["product_type", "value"]
    frame = values[["product_type", attribute]].set_axis(keys, axis=1)
    frame = frame.assign(interest=counts, in_stock=in_stock.astype(int), products=1).dropna()
    mean = frame.groupby(keys)["interest"].transform("mean")
    cells = frame.groupby(keys)[["products", "in_stock", "interest"]].sum().reset_index()
    freedom = int((mean > 0).sum()) - int((cells["interest"] > 0).sum())
    if freedom < _LEAST_REPEATED or frame["interest"].sum() < LEAST_INTEREST:
        return None
    spread = max(1.0, float(((frame["interest"] - mean) ** 2 / mean).sum() / freedom))
    regression = make_pipeline(OneHotEncoder(), PoissonRegressor(alpha=0, tol=1e-6, max_iter=1000))
    weights = {"poissonregressor__sample_weight": cells["products"]}
    regression.fit(cells[keys], cells["interest"] / cells["products"], **weights)
    cells["expected"] = cells["products"] * regression.predict(cells[keys])
    sizes = [cells.groupby(key)["products"].transform("sum") for key in keys]
    few = sizes[0] * sizes[1] / len(frame) / 2
    wanted = cells["interest"] >= LEAST_INTEREST
    tested = cells[(cells["in_stock"] <= np.maximum(_MOST_STOCKED, few)) & wanted]
    tail = LEVEL / 2 / max(1, len(tested))
    events, scale = tested["interest"] / spread, 2 * tested["expected"] / spread
    low = stats.chi2.ppf(tail, 2 * events) / scale
    high = stats.chi2.isf(tail, 2 * events + 2) / scale
    gaps = tested.assign(low=low, high=high)[low > 1].sort_values("low", ascending=False)
    # Two other types have the value, and share another value with the type: without such links the
    # regression would compare rings with rugs.
    links = pd.crosstab(*(cells[wanted][key] for key in keys))
    linked = ((links @ links.T > 0).astype(int) @ links).stack()
    offered = pd.MultiIndex.from_frame(cells[keys])
    never = linked[linked >= _LEAST_LINKS].index.difference(offered).to_frame(index=False)
    if never.empty:
        return gaps, never
    never["each"] = regression.predict(never)
    ratios = (cells["interest"] / cells["expected"])[wanted].quantile([0.05, 0.95])
    never["low"], never["high"] = (ratio * never["each"] for ratio in ratios)
    never = never[never["low"] > frame["interest"].mean()]
    return gaps, never.sort_values("low", ascending=False)[:_MOST_UNOFFERED]


def weekly_shares(
    events: pd.DataFrame, values: "pd.Series[str]"
) -> tuple[pd.DataFrame, "pd.Series[int]"] | None:
    """Return each week's shares of the most wanted values, and its interest.

    A shopper counts once per product and week. Week 0 is the one that ends with the newest event,
    -1 the one before. ``values`` are indexed by product id. Weeks with little interest are left
    out; None with fewer than three others.
    """
    week = (events["timestamp"].max() - events["timestamp"]) // _WEEK_S
    rows = events[["user_id", "item_id"]].assign(week=-week, value=events["item_id"].map(values))
    rows = rows.dropna().drop_duplicates()
    table = pd.crosstab(rows["week"], rows["value"])
    interests = table.sum(axis=1)
    table = table[interests >= LEAST_INTEREST]
    if len(table) < _LEAST_WEEKS:
        return None
    top = table.sum().nlargest(_MOST_VALUES).index
    return table[top].div(interests[table.index], axis=0), interests[table.index]
