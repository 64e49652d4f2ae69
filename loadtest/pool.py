"""The requests of a run, put together before it starts.

They are a sequence: histories grow from one to the next as their sessions go on. It is sent in
order and, when it is through, again; what must be new every time carries a fresh number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from loadtest.bad import BAD_FOR_ENCODER, BAD_FOR_RECOMMENDER
from loadtest.offers import Needs, Offer, Offers
from loadtest.rendered import (
    Rendered,
    as_form,
    as_json,
    as_picture,
    fresh_picture,
    fresh_text,
)
from loadtest.shoppers import histories
from loadtest.traffic import BAD, UNSEEN, AskedKind, Kind, TrafficSettings
from newshelf.catalog import Catalog, read_catalog
from newshelf.errors import CatalogError

__all__ = ["Drawer", "draw_kinds", "draw_pool"]

_ENCODER = "/predictions/encoder"
_RECOMMENDER = "/predictions/recommender"
_BYTES_PER_MB = 1_000_000
_HALF = 0.5
_ALL_NEEDS: tuple[Needs, ...] = ("both", "text", "picture")


def draw_pool(folder: Path, traffic: TrafficSettings, seed: Sequence[int]) -> list[Rendered]:
    """Draw the requests of a run from the catalogue in ``folder``.

    Args:
        folder: in the catalogue format.
        traffic: what is sent.
        seed: equal seeds draw equal requests.

    Returns:
        As many as the settings say, or as fit into the memory that they allow.

    Raises:
        CatalogError: the catalogue cannot be read, or has not what the mix needs.
    """
    drawer = Drawer(read_catalog(folder), traffic, np.random.default_rng(seed))
    pool: list[Rendered] = []
    size = 0
    for request in drawer:
        if pool and size + request.size > traffic.requests_mb * _BYTES_PER_MB:
            break
        pool.append(request)
        size += request.size
        if len(pool) == traffic.requests:
            break
    return pool


def draw_kinds(
    folder: Path, traffic: TrafficSettings, seed: Sequence[int], kinds: Sequence[Kind], each: int
) -> dict[Kind, list[Rendered]]:
    """Draw so many requests of each kind, whatever their weights are.

    Arguments and errors are those of ``draw_pool``.
    """
    mix = {kind: 1.0 for kind in get_args(AskedKind) if kind in kinds}
    # An unseen product takes the place of a history's last item.
    mix |= {"recommend history": 1.0} if UNSEEN in kinds else {}
    asked = traffic.model_copy(update={"mix": mix, "cold_share": float(UNSEEN in kinds)})
    drawer = Drawer(read_catalog(folder), asked, np.random.default_rng(seed))
    return {kind: [drawer.draw(kind) for _ in range(each)] for kind in kinds}


class Drawer:
    """Draws request after request; ``draw`` draws one of a kind."""

    def __init__(
        self, catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
    ) -> None:
        """Check that the catalogue has what the mix needs.

        Raises:
            CatalogError: it has not.
        """
        self._traffic = traffic
        # Of their own each: how pictures are drawn must not change who looks at what.
        self._random, for_shoppers, for_offers = random.spawn(3)
        self._ids: list[str] = catalog.items["id"].tolist()
        self._offers = Offers(catalog, traffic.picture_px, for_offers)
        self._histories = histories(catalog, traffic, for_shoppers)
        self._kinds: list[AskedKind] = list(traffic.mix)
        weights = np.array([traffic.mix[kind] for kind in self._kinds], dtype=np.float64)
        self._shares = weights / weights.sum()
        self._draws: Mapping[Kind, Callable[[], Rendered]] = {
            "encode picture": lambda: self._encode("encode picture", "picture"),
            "encode text": lambda: self._encode("encode text", "text"),
            "encode both": lambda: self._encode("encode both", "both"),
            "recommend history": self._history,
            "recommend candidates": self._candidates,
            UNSEEN: self._unseen,
            BAD: self._bad,
        }
        _check(catalog, traffic, self._offers)
        self._richest: Needs = next(filter(self._offers.has, _ALL_NEEDS), "text")

    def __iter__(self) -> Iterator[Rendered]:
        while True:
            yield self.draw(self._kind())

    def draw(self, kind: Kind) -> Rendered:
        """One request of this kind."""
        return self._draws[kind]()

    def _kind(self) -> Kind:
        if self._random.random() < self._traffic.bad_share:
            return BAD
        kind = self._kinds[int(self._random.choice(len(self._kinds), p=self._shares))]
        if kind == "recommend history" and self._random.random() < self._traffic.cold_share:
            return UNSEEN
        return kind

    def _encode(self, kind: Kind, needs: Needs) -> Rendered:
        """A picture goes bare or in base64, and as often in a form."""
        offer = self._offers.draw(needs)
        if offer.picture is None or (offer.fields and self._random.random() < _HALF):
            return as_json(kind, _ENCODER, _product(offer))
        if not offer.fields and self._random.random() < _HALF:
            return as_picture(kind, _ENCODER, offer.picture)
        return as_form(kind, _ENCODER, offer.fields, offer.picture)

    def _history(self) -> Rendered:
        body = {"history": next(self._histories), "k": self._traffic.k}
        return as_json("recommend history", _RECOMMENDER, body)

    def _unseen(self) -> Rendered:
        product = _product(self._offers.draw(self._richest))
        body = {"history": [*next(self._histories)[:-1], product], "k": self._traffic.k}
        return as_json(UNSEEN, _RECOMMENDER, body)

    def _candidates(self) -> Rendered:
        count = min(self._traffic.candidates, len(self._ids))
        rows = self._random.choice(len(self._ids), count, replace=False)
        body = {
            "history": next(self._histories),
            "candidates": [self._ids[row] for row in rows],
            "k": self._traffic.k,
        }
        return as_json("recommend candidates", _RECOMMENDER, body)

    def _bad(self) -> Rendered:
        bad: tuple[Rendered, ...] = (
            *(BAD_FOR_ENCODER if self._traffic.sends("encode") else ()),
            *(BAD_FOR_RECOMMENDER if self._traffic.sends("recommend") else ()),
        )
        return bad[int(self._random.integers(len(bad)))]


def _product(offer: Offer) -> dict[str, Any]:
    """As JSON, with the number where it costs least: after the picture, or else in a text."""
    if offer.picture is not None:
        return {**offer.fields, "image": fresh_picture(offer.picture)}
    name = "title" if "title" in offer.fields else "description"
    return {**offer.fields, name: fresh_text(str(offer.fields[name]))}


def _needed(traffic: TrafficSettings) -> Iterator[tuple[tuple[Needs, ...], str]]:
    """Of what the catalogue must have any, and how it is called."""
    if traffic.sends("encode picture"):
        yield ("picture",), "pictures that can be read"
    if traffic.sends("encode text"):
        yield ("text",), "titles"
    if traffic.sends("encode both"):
        yield ("both",), "products with a title and a picture that can be read"
    if traffic.sends("recommend history") and traffic.cold_share:
        yield _ALL_NEEDS, "products with a title or a picture that can be read"


def _check(catalog: Catalog, traffic: TrafficSettings, offers: Offers) -> None:
    for needs, named in _needed(traffic):
        if not any(map(offers.has, needs)):
            raise CatalogError(
                f"{catalog.folder} has no {named}, which the mix sends; "
                "give a mix without that kind of request"
            )
