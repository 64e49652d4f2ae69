"""Real questions from a catalogue: to see that a model answers, and to show what it says."""

from dataclasses import dataclass
from pathlib import Path

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import ENCODABLE

_HISTORY = 3


@dataclass(frozen=True)
class Demo:
    """A shopper's few products, and what is needed to ask for more and print the answer."""

    history: list[str]
    """Product ids, oldest first."""
    whose: str
    """Whom they belong to, for a reader."""
    titles: dict[str, str]
    """Title of each product that has one, by id."""
    picture: Path | None
    """One of the catalogue's pictures."""

    def questions(self) -> dict[str, dict[str, object]]:
        """A valid request of each model."""
        return {"encoder": dict(ENCODABLE), "recommender": {"history": self.history, "k": 1}}


def pick_demo(catalog: Catalog) -> Demo:
    """Take a few products of one real shopper or basket; the same ones at every start."""
    items = catalog.items
    titled = items[items["title"].notna()]
    pictures = (catalog.image_path(row) for row in range(len(items)))
    picture = next((path for path in pictures if path is not None), None)
    history, whose = _history(catalog)
    return Demo(
        history=history,
        whose=whose,
        titles=dict(zip(titled["id"], titled["title"], strict=True)),
        picture=picture,
    )


def _history(catalog: Catalog) -> tuple[list[str], str]:
    for table, owner, whose in (
        (catalog.events, "user_id", "shopper"),
        (catalog.baskets, "basket_id", "basket"),
    ):
        if table is None or table.empty:
            continue
        pairs = table[[owner, "item_id"]].drop_duplicates(keep="last")
        # Who came last and has enough; or else who has the most.
        counts = pairs.groupby(owner, sort=False)["item_id"].transform("size")
        enough = pairs[counts >= min(_HISTORY, counts.max())]
        chosen = enough[owner].iloc[-1]
        ids = enough.loc[enough[owner] == chosen, "item_id"].tail(_HISTORY)
        return [str(value) for value in ids], f"{whose} {chosen}"
    return [str(value) for value in catalog.items["id"].head(_HISTORY)], "the first products"
