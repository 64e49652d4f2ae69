"""A made archive, changes to its products, and a predictor over both."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from newshelf.config import Limits
from newshelf.nn.blend import ContentBound, nearest_shares
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import IndexManifest, ItemIndex
from newshelf.serving.item_table import INDEX_COLUMNS, ItemTable, KnownValues, TextReader
from newshelf.serving.live import LiveIndex, nearest_count
from newshelf.serving.protocol import RawRequest
from newshelf.serving.recommender_predictor import RecommenderPredictor
from newshelf.serving.search.base import PlainSearch
from newshelf.serving.segments import (
    Current,
    Segment,
    write_current,
    write_segment,
)
from newshelf.serving.shelf_reader import ShelfReader
from tests.fake_models import POOLING, WIDTH, FakeEncoder, fake_scorer, project, unit_rows
from tests.unit.export.tiny_checkpoint import BLEND_WEIGHTS, tiny_blend

VERSION = "0123456789ab"
TYPES = ["Jewellery > Rings", "Clothing > Shirts", "Home > Lamps", None]
BRANDS = ["Aurora", "Fjord", None]
IDS = [f"i{number:02}" for number in range(40)]
READER = TextReader(least=0.6)


@dataclass(frozen=True)
class Change:
    """A product that is put, or removed."""

    item: str
    removed: bool = False
    encoded: bool = True
    """With another embedding than the archive's; always, for a new product."""
    price: float | None = 5.0
    stock: str | None = "in_stock"
    kind: int = 0
    style: str | None = None
    popularity: float = 0.0
    seed: int = field(default=0)


def archive_of(items: int, mode: str, seed: int) -> ItemIndex:
    rng = np.random.default_rng(seed)
    columns = {
        name: [None] * items
        for name in ("title", "color", "material", "size", "created_at", "availability")
    } | {
        "id": IDS[:items],
        "product_type": [TYPES[at] for at in rng.integers(0, 4, items)],
        "brand": [BRANDS[at] for at in rng.integers(0, 3, items)],
        "price": rng.integers(0, 9, items).astype(float).tolist(),
        # Equals, so that ties are broken by position.
        "popularity": rng.integers(0, 4, items).astype(float).tolist(),
        "season": [f"season {at}" for at in rng.integers(0, 2, items)],
    }
    facts = [(int(row), "style", "minimal", 0.9) for row in rng.integers(0, items, 3)]
    embeddings = unit_rows(items, seed)
    vectors = project(embeddings)
    blend = tiny_blend(BlendSpec(weights=BLEND_WEIGHTS), items) if mode != "no links" else None
    manifest = IndexManifest(
        encoder_version=VERSION,
        index_version="0" * 12,
        items=items,
        embedding=WIDTH,
        vector=vectors.shape[1],
        pooling=POOLING,
        blend=None if blend is None else blend.spec,
        knowledge=len(facts),
        extras=("season",),
    )
    table = ItemTable.from_columns(columns, KnownValues.from_rows(facts, READER))
    return ItemIndex(
        manifest,
        table,
        embeddings,
        vectors,
        PlainSearch(embeddings),
        PlainSearch(vectors),
        blend,
    )


def segment_of(archive: ItemIndex, changes: Sequence[Change]) -> Segment:
    """The last change of each id, in order."""
    last = {change.item: change for change in changes}
    kept = [change for change in changes if last[change.item] is change]
    put = [change for change in kept if not change.removed]
    origin = archive.table.rows([change.item for change in put])
    embeddings = np.zeros((len(put), WIDTH), dtype=np.float32)
    for at, (change, row) in enumerate(zip(put, origin.tolist(), strict=True)):
        fresh = change.encoded or row < 0
        embeddings[at] = unit_rows(1, 1000 + change.seed)[0] if fresh else archive.embeddings[row]
    vectors = project(embeddings)
    for at, row in enumerate(origin.tolist()):
        if row >= 0 and not put[at].encoded:
            vectors[at] = archive.vectors[row]
    nearest = np.zeros((len(put), 0), dtype=np.int64)
    shares = nearest.astype(np.float32)
    if nearest_count(archive) and put:
        nearest, shares = nearest_shares(embeddings, archive.embeddings)
    columns = {name: [None] * len(put) for name in INDEX_COLUMNS} | {
        "id": [change.item for change in put],
        "title": [f"{change.item} now" for change in put],
        "product_type": [TYPES[change.kind] for change in put],
        "brand": [BRANDS[change.kind % 3] for change in put],
        "price": [change.price for change in put],
        "availability": [change.stock for change in put],
        "popularity": [change.popularity for change in put],
    }
    return Segment(
        columns=columns,
        extras=[{"season": f"season {change.kind}"} if change.kind else {} for change in put],
        knowledge=[(at, "style", put[at].style, 0.8) for at in range(len(put)) if put[at].style],
        embeddings=embeddings,
        vectors=vectors,
        origin=origin,
        nearest=nearest.reshape(len(put), nearest_count(archive)),
        shares=shares.reshape(len(put), nearest_count(archive)),
        removed=[change.item for change in kept if change.removed],
    )


def publish(
    folder: Path, archive: ItemIndex, cuts: Sequence[Sequence[Change]], current: Current
) -> Current:
    """Write a segment for each cut, and CURRENT."""
    for changes in cuts:
        current = current.model_copy(
            update={
                "seq": current.seq + len(changes),
                "segments": (*current.segments, f"seg-{current.seq}-{len(current.segments)}"),
            }
        )
        shape = LiveIndex.of(archive).shape
        write_segment(folder, current.segments[-1], segment_of(archive, changes), shape)
    write_current(folder, current)
    return current


def predictor_over(archive: ItemIndex, live: LiveIndex, mode: str) -> RecommenderPredictor:
    reader = ShelfReader(Path("nowhere"), live)
    predictor = RecommenderPredictor(
        FakeEncoder(),
        fake_scorer(),
        archive,
        model_version=VERSION,
        limits=Limits(),
        retrieve=6,
        shelf=reader,
    )
    if mode in ("formula", "bound"):
        bound = ContentBound(archive.embeddings, 12) if mode == "bound" else None
        predictor._ranker = replace(predictor._ranker, pairs=None, bound=bound)
    return predictor


def answers(predictor: RecommenderPredictor, bodies: Sequence[dict]) -> list[dict]:
    rows = [
        RawRequest({"body": json.dumps(body).encode()}, "application/json", f"{at}")
        for at, body in enumerate(bodies)
    ]
    found = []
    for answer in predictor.predict(rows):
        body = json.loads(answer.body)
        body.pop("index_version", None)
        found.append({"status": answer.status, **body})
    return found
