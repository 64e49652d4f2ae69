"""Requests of a run, drawn from the catalogue before the run starts.

They form a sequence: histories grow from one request to the next as sessions continue. The
sequence is sent in order and repeated; new products carry a fresh number each time.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from loadtest.requests import (
    BAD_FOR_ENCODER,
    BAD_FOR_RECOMMENDER,
    Picture,
    Rendered,
    as_form,
    as_json,
    as_picture,
    fresh_picture,
    fresh_text,
)
from loadtest.traffic import BAD, UNSEEN, AskedKind, Kind, TrafficSettings
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.errors import CatalogError

_JPEG_QUALITY = 85
_KEPT_PICTURES = 256
_PAUSE_S = 30 * 60
"""Half an hour without an event ends a session, as web analytics has it."""
_ENCODER = "/predictions/encoder"
_RECOMMENDER = "/predictions/recommender"
_BYTES_PER_MB = 1_000_000
_HALF = 0.5

Needs = Literal["text", "picture", "both"]
_ALL_NEEDS: tuple[Needs, ...] = ("both", "text", "picture")


@dataclass(frozen=True)
class Offer:
    """A new product."""

    fields: Mapping[str, Any]
    """As JSON gives them, without an id."""
    picture: Picture | None


class Offers:
    """Draws products that have what a request needs."""

    def __init__(
        self, catalog: Catalog, picture_px: tuple[int, ...], random: np.random.Generator
    ) -> None:
        self._products = catalog.products()
        self._paths = [catalog.image_path(row) for row in range(len(self._products))]
        self._px = picture_px
        self._random = random
        rows = range(len(self._products))
        texts = [row for row in rows if self._products[row].text()]
        pictures = [row for row in rows if self._paths[row] is not None]
        self._rows: Mapping[Needs, list[int]] = {
            "text": texts,
            "picture": pictures,
            "both": sorted({*texts} & {*pictures}),
        }
        self._read = lru_cache(_KEPT_PICTURES)(_read_picture)

    def has(self, needs: Needs) -> bool:
        """Whether any product has it, with a picture that can be read."""
        rows = self._rows[needs]
        while rows:
            if needs == "text" or self._picture(rows[0]) is not None:
                return True
            del rows[0]
        return False

    def draw(self, needs: Needs) -> Offer:
        """A product that has it; call only when ``has`` says so.

        The picture is of one of the sizes that were asked for.
        """
        rows = self._rows[needs]
        while True:
            place = int(self._random.integers(len(rows)))
            row = rows[place]
            picture = None if needs == "text" else self._picture(row)
            if needs != "text" and picture is None:
                del rows[place]
                continue
            fields = {}
            if needs != "picture":
                fields = self._products[row].model_dump(exclude={"id"}, exclude_none=True)
            return Offer(fields, picture)

    def _picture(self, row: int) -> Picture | None:
        path = self._paths[row]
        px = int(self._random.choice(self._px)) if self._px else None
        return None if path is None else self._read(path, px)


def _read_picture(path: Path, px: int | None) -> Picture | None:
    """A picture file, or the same as a JPEG whose longest side is ``px``; None if unreadable."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if px is None:
                return Picture(data, image.get_format_mimetype() or "application/octet-stream")
            scale = px / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            resized = image.convert("RGB").resize(size)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        # The catalogue's reader does not open pictures; what cannot be shown is not sent.
        return None
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Picture(buffer.getvalue(), "image/jpeg")


def zipf_shares(items: int, exponent: float) -> np.ndarray:
    """Zipf's law over ``items`` ranks: the share of rank r is in proportion to r**-exponent.

    Returns:
        ``(items,) float64``, most popular first, of sum 1.
    """
    weights = np.arange(1, items + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


def histories(
    catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    """What shoppers have looked at when they ask, oldest first; request after request, forever.

    So many sessions are under way as the settings say. Any of them goes on next, by one item
    more, and one that is over makes room for another.

    Raises:
        CatalogError: events are to be replayed, and there are none.
    """
    return _histories(_sessions(catalog, traffic, random), traffic, random)


def _histories(
    sessions: Iterator[list[str]], traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    under_way = [_entered(next(sessions), random) for _ in range(traffic.shoppers)]
    while True:
        place = int(random.integers(len(under_way)))
        items, seen = under_way[place]
        yield items[max(0, seen - traffic.longest_history) : seen]
        under_way[place] = (items, seen + 1) if seen < len(items) else (next(sessions), 1)


def _entered(items: list[str], random: np.random.Generator) -> tuple[list[str], int]:
    """A session that is anywhere in its course: the run does not begin with the shop's doors."""
    return items, int(random.integers(1, len(items) + 1))


def _sessions(
    catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    if traffic.popularity == "events":
        if catalog.events is None:
            raise CatalogError(
                f"{catalog.folder} has no events to replay; draw items by popularity 'zipf'"
            )
        recorded = replayed_sessions(catalog.events)
        start = int(random.integers(len(recorded)))
        return cycle(recorded[start:] + recorded[:start])
    return _drawn_sessions(catalog.items["id"].tolist(), traffic, random)


def _drawn_sessions(
    ids: list[str], traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    # Which item has which rank is the seed's matter, not the row's.
    ranked = random.permutation(np.array(ids, dtype=object))
    shares = zipf_shares(len(ids), traffic.zipf_exponent)
    while True:
        length = int(random.geometric(1 / traffic.session_requests))
        yield random.choice(ranked, length, p=shares).tolist()


def replayed_sessions(events: pd.DataFrame) -> list[list[str]]:
    """The items of each session, in the order in which sessions began.

    Args:
        events: ``user_id``, ``item_id`` and ``timestamp`` (epoch seconds), oldest first.
    """
    by_user = events.sort_values(["user_id", "timestamp"], kind="stable")
    changes = by_user["user_id"].ne(by_user["user_id"].shift())
    paused = by_user["timestamp"].diff() > _PAUSE_S
    session = (changes | paused).cumsum()
    grouped = by_user.groupby(session.to_numpy())
    order = grouped["timestamp"].min().sort_values(kind="stable").index
    items = grouped["item_id"].agg(list)
    return [items[number] for number in order]


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
