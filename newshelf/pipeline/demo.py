"""Sample requests from a catalogue, to check that a model answers and to show its answer."""

from dataclasses import dataclass
from pathlib import Path

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import ENCODABLE

_HISTORY = 3


@dataclass(frozen=True)
class Demo:
    """A shopper's history, and what is needed to print an answer to it."""

    history: list[str]
    """Product ids, oldest first."""
    owner: str
    """Owner of the history, such as ``shopper u17``."""
    titles: dict[str, str]
    """Title of each product that has one, by id."""
    picture: Path | None
    """One of the catalogue's pictures."""

    def requests(self) -> dict[str, dict[str, object]]:
        """Return a valid request for each model."""
        return {"encoder": dict(ENCODABLE), "recommender": {"history": self.history, "k": 1}}


def pick_demo(catalog: Catalog) -> Demo:
    """Pick the history of a shopper or basket; the same one at every start."""
    items = catalog.items
    titled = items[items["title"].notna()]
    pictures = (catalog.image_path(row) for row in range(len(items)))
    picture = next((path for path in pictures if path is not None), None)
    history, owner = _history(catalog)
    return Demo(
        history=history,
        owner=owner,
        titles=dict(zip(titled["id"], titled["title"], strict=True)),
        picture=picture,
    )


def _history(catalog: Catalog) -> tuple[list[str], str]:
    for table, column, kind in (
        (catalog.events, "user_id", "shopper"),
        (catalog.baskets, "basket_id", "basket"),
    ):
        if table is None or table.empty:
            continue
        pairs = table[[column, "item_id"]].drop_duplicates(keep="last")
        # The latest one with enough items, or else one with the most.
        counts = pairs.groupby(column, sort=False)["item_id"].transform("size")
        enough = pairs[counts >= min(_HISTORY, counts.max())]
        chosen = enough[column].iloc[-1]
        ids = enough.loc[enough[column] == chosen, "item_id"].tail(_HISTORY)
        return [str(value) for value in ids], f"{kind} {chosen}"
    return [str(value) for value in catalog.items["id"].head(_HISTORY)], "the first products"
