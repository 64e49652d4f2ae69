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
    ENCODER,
    RECOMMENDER,
    ImageFile,
    Rendered,
    as_form,
    as_image,
    as_json,
    fresh_image,
    fresh_text,
)
from loadtest.traffic import BAD, UNSEEN, AskedKind, Kind, TrafficSettings
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.errors import CatalogError

_JPEG_QUALITY = 85
_CACHED_IMAGES = 256
_PAUSE_S = 30 * 60
"""Half an hour without an event ends a session, as in web analytics."""
_BYTES_PER_MB = 1_000_000
_HALF = 0.5

Needs = Literal["text", "picture", "both"]
_ALL_NEEDS: tuple[Needs, ...] = ("both", "text", "picture")


@dataclass(frozen=True)
class NewProduct:
    """A product that is in no index."""

    fields: Mapping[str, Any]
    """As in JSON, without an id."""
    image: ImageFile | None


class NewProducts:
    """Draws products of the catalogue that have what a request needs."""

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
        self._read = lru_cache(_CACHED_IMAGES)(_read_image)

    def has(self, needs: Needs) -> bool:
        """Return whether any product has it; images must be readable."""
        rows = self._rows[needs]
        while rows:
            if needs == "text" or self._image(rows[0]) is not None:
                return True
            del rows[0]
        return False

    def draw(self, needs: Needs) -> NewProduct:
        """Return a product that has it, its image in one of the sizes; ``has`` must be true."""
        rows = self._rows[needs]
        while True:
            place = int(self._random.integers(len(rows)))
            row = rows[place]
            image = None if needs == "text" else self._image(row)
            if needs != "text" and image is None:
                del rows[place]
                continue
            fields = {}
            if needs != "picture":
                fields = self._products[row].model_dump(exclude={"id"}, exclude_none=True)
            return NewProduct(fields, image)

    def _image(self, row: int) -> ImageFile | None:
        path = self._paths[row]
        px = int(self._random.choice(self._px)) if self._px else None
        return None if path is None else self._read(path, px)


def _read_image(path: Path, px: int | None) -> ImageFile | None:
    """Read an image, as a JPEG with longest side ``px`` if given; None if it is unreadable."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if px is None:
                return ImageFile(data, image.get_format_mimetype() or "application/octet-stream")
            scale = px / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            resized = image.convert("RGB").resize(size)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        # The catalogue's reader does not open images; an unreadable one is not sent.
        return None
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return ImageFile(buffer.getvalue(), "image/jpeg")


def zipf_shares(items: int, exponent: float) -> np.ndarray:
    """Return Zipf's law over ``items`` ranks: the share of rank r is proportional to r**-exponent.

    Returns:
        ``(items,) float64``, most popular first, of sum 1.
    """
    weights = np.arange(1, items + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


def histories(
    catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    """Yield the history of each request, oldest item first, without end.

    ``traffic.shoppers`` sessions are active. Each request continues a random one by one item;
    a session that ends is replaced by another.

    Raises:
        CatalogError: the settings replay events, and the catalogue has none.
    """
    return _histories(_sessions(catalog, traffic, random), traffic, random)


def _histories(
    sessions: Iterator[list[str]], traffic: TrafficSettings, random: np.random.Generator
) -> Iterator[list[str]]:
    active = [_entered(next(sessions), random) for _ in range(traffic.shoppers)]
    while True:
        place = int(random.integers(len(active)))
        items, seen = active[place]
        yield items[max(0, seen - traffic.longest_history) : seen]
        active[place] = (items, seen + 1) if seen < len(items) else (next(sessions), 1)


def _entered(items: list[str], random: np.random.Generator) -> tuple[list[str], int]:
    """Return a session at a random point: the run does not start with an empty shop."""
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
    # The seed, not the row, decides which item has which rank.
    ranked = random.permutation(np.array(ids, dtype=object))
    shares = zipf_shares(len(ids), traffic.zipf_exponent)
    while True:
        length = int(random.geometric(1 / traffic.session_requests))
        yield random.choice(ranked, length, p=shares).tolist()


def replayed_sessions(events: pd.DataFrame) -> list[list[str]]:
    """Return the items of each session, ordered by the start of the session.

    ``timestamp`` of the events is in epoch seconds, oldest first.
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

    Returns:
        As many as the settings say, or as fit into their memory limit.

    Raises:
        CatalogError: the catalogue cannot be read, or lacks what the mix needs.
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
    """Draw ``each`` requests of each kind, whatever their weights.

    Arguments and errors are those of ``draw_pool``.
    """
    mix = {kind: 1.0 for kind in get_args(AskedKind) if kind in kinds}
    # An unseen product replaces the last item of a history.
    mix |= {"recommend history": 1.0} if UNSEEN in kinds else {}
    asked = traffic.model_copy(update={"mix": mix, "cold_share": float(UNSEEN in kinds)})
    drawer = Drawer(read_catalog(folder), asked, np.random.default_rng(seed))
    return {kind: [drawer.draw(kind) for _ in range(each)] for kind in kinds}


class Drawer:
    """Iterator over requests of the mix; ``draw`` returns one of a given kind."""

    def __init__(
        self, catalog: Catalog, traffic: TrafficSettings, random: np.random.Generator
    ) -> None:
        """Check that the catalogue has what the mix needs.

        Raises:
            CatalogError: it lacks something.
        """
        self._traffic = traffic
        # Separate generators: image settings must not change the histories.
        self._random, for_shoppers, for_products = random.spawn(3)
        self._ids: list[str] = catalog.items["id"].tolist()
        self._products = NewProducts(catalog, traffic.picture_px, for_products)
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
        _check(catalog, traffic, self._products)
        self._richest: Needs = next(filter(self._products.has, _ALL_NEEDS), "text")

    def __iter__(self) -> Iterator[Rendered]:
        while True:
            yield self.draw(self._kind())

    def draw(self, kind: Kind) -> Rendered:
        """Return a request of this kind."""
        return self._draws[kind]()

    def _kind(self) -> Kind:
        if self._random.random() < self._traffic.bad_share:
            return BAD
        kind = self._kinds[int(self._random.choice(len(self._kinds), p=self._shares))]
        if kind == "recommend history" and self._random.random() < self._traffic.cold_share:
            return UNSEEN
        return kind

    def _encode(self, kind: Kind, needs: Needs) -> Rendered:
        """Return a product; half of the images are in a form, the others bare or in base64."""
        product = self._products.draw(needs)
        if product.image is None or (product.fields and self._random.random() < _HALF):
            return as_json(kind, ENCODER, _as_json(product))
        if not product.fields and self._random.random() < _HALF:
            return as_image(kind, ENCODER, product.image)
        return as_form(kind, ENCODER, product.fields, product.image)

    def _history(self) -> Rendered:
        body = {"history": next(self._histories), "k": self._traffic.k}
        return as_json("recommend history", RECOMMENDER, body)

    def _unseen(self) -> Rendered:
        product = _as_json(self._products.draw(self._richest))
        body = {"history": [*next(self._histories)[:-1], product], "k": self._traffic.k}
        return as_json(UNSEEN, RECOMMENDER, body)

    def _candidates(self) -> Rendered:
        count = min(self._traffic.candidates, len(self._ids))
        rows = self._random.choice(len(self._ids), count, replace=False)
        body = {
            "history": next(self._histories),
            "candidates": [self._ids[row] for row in rows],
            "k": self._traffic.k,
        }
        return as_json("recommend candidates", RECOMMENDER, body)

    def _bad(self) -> Rendered:
        bad: tuple[Rendered, ...] = (
            *(BAD_FOR_ENCODER if self._traffic.sends("encode") else ()),
            *(BAD_FOR_RECOMMENDER if self._traffic.sends("recommend") else ()),
        )
        return bad[int(self._random.integers(len(bad)))]


def _as_json(product: NewProduct) -> dict[str, Any]:
    """Return JSON fields, with the fresh number after the image, or else in a text."""
    if product.image is not None:
        return {**product.fields, "image": fresh_image(product.image)}
    name = "title" if "title" in product.fields else "description"
    return {**product.fields, name: fresh_text(str(product.fields[name]))}


def _needed(traffic: TrafficSettings) -> Iterator[tuple[tuple[Needs, ...], str]]:
    """Yield what the catalogue must have, any of the first, and its name."""
    if traffic.sends("encode picture"):
        yield ("picture",), "pictures that can be read"
    if traffic.sends("encode text"):
        yield ("text",), "titles"
    if traffic.sends("encode both"):
        yield ("both",), "products with a title and a picture that can be read"
    if traffic.sends("recommend history") and traffic.cold_share:
        yield _ALL_NEEDS, "products with a title or a picture that can be read"


def _check(catalog: Catalog, traffic: TrafficSettings, products: NewProducts) -> None:
    for needs, name in _needed(traffic):
        if not any(map(products.has, needs)):
            raise CatalogError(
                f"{catalog.folder} has no {name}, which the mix sends; "
                "give a mix without that kind of request"
            )
