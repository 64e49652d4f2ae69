"""One model version in the shelf process: its encoder, the index of its archive, and new bases."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file

from newshelf.errors import NewshelfError
from newshelf.files import directory_aside
from newshelf.nn.blend import nearest_shares
from newshelf.nn.inputs import attribute_row
from newshelf.nn.spec import read_spec
from newshelf.serving.encode import Encoding, ProductEncoder
from newshelf.serving.index import IndexKnowledge, IndexManifest, ItemIndex, load_index
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.live import LinkRows, LiveIndex, segment_shape
from newshelf.serving.model_config import read_model_config
from newshelf.serving.products import ProductInput
from newshelf.serving.recommender_predictor import open_models, project
from newshelf.serving.resolve import Encoded
from newshelf.serving.runtimes.base import Device, ScorerGraphs
from newshelf.serving.search.base import FloatArray
from newshelf.serving.segments import Current, Segment
from newshelf.serving.settings import INDEX, ServingSettings, read_version
from newshelf.serving.shelf_reader import LINKS, open_live
from newshelf.serving.trace import StageTimer
from newshelf.store.items import EncodedItem, StoredItem


def fold(folder: Path, current: Current, name: str, archive: LiveIndex) -> IndexManifest:
    """Write a new base: the products of a publication that are alive, in their order.

    Links stay those of the archive; ``links.safetensors`` says which each product has. Recommending
    from the new base gives the answers that its parts gave. Popularity is added by ``CURRENT``, so
    the column has what the parts' columns have.
    """
    live = open_live(folder, current.model_copy(update={"popularity": None}), archive)
    positions = np.flatnonzero(live.alive)
    with directory_aside(folder / name) as out:
        manifest = write_index(
            out,
            encoder_version=live.archive.manifest.encoder_version,
            items=_frame(live),
            embeddings=live.positions.embeddings(positions),
            vectors=None if live.archive.vectors is None else live.positions.vectors(positions),
            knowledge=_knowledge(live),
            pooling=live.archive.manifest.pooling,
        )
        origin = live.positions.origin(positions)
        new = np.flatnonzero(origin < 0)
        nearest = np.zeros((len(positions), live.shape.nearest), dtype=np.int64)
        shares = np.zeros(nearest.shape, dtype=np.float32)
        nearest[new], shares[new] = live.positions.neighbours(positions[new])
        links = LinkRows(origin, live.positions.unchanged(positions), nearest, shares)
        save_file(vars(links), out / LINKS)
        for path in out.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return manifest


def _frame(live: LiveIndex) -> pd.DataFrame:
    names = dict.fromkeys(
        [*INDEX_COLUMNS, *(name for _, table in live.positions.tables for name in table.extras)]
    )
    parts = [
        pd.DataFrame({name: table.cells(name) for name in names}, dtype=object)[
            live.alive[start : start + len(table)]
        ]
        for start, table in live.positions.tables
    ]
    return pd.concat(parts, ignore_index=True)


def _knowledge(live: LiveIndex) -> IndexKnowledge | None:
    if live.archive.manifest.knowledge is None:
        return None
    row_of = np.cumsum(live.alive) - 1
    rows = [
        (int(row_of[start + row]), attribute, value, confidence)
        for start, table in live.positions.tables
        for row, attribute, value, confidence in table.known.statements()
        if live.alive[start + row]
    ]
    return IndexKnowledge(rows, live.base.table.known.reader.lexicon)


_LOG = logging.getLogger(__name__)
PictureOf = Callable[[str], bytes]
"""Returns the bytes of a picture reference, or raises ``NewshelfError``."""


class ShelfModel:
    """Encoder and trained index of a model version, from its unpacked archive."""

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self._directory = directory
        self._spec = read_spec(directory)
        config = read_model_config(directory)
        # Nothing is encoded twice here, so there is nothing to cache.
        self._settings = ServingSettings.from_model_config(config).model_copy(
            update={"cache_bytes": 0, "threads": threads, "decode_threads": threads}
        )
        self.version, self.limits = read_version(directory), self._settings.limits
        self.index: ItemIndex = load_index(
            directory / INDEX,
            encoder_version=self.version,
            min_confidence=self._settings.min_confidence,
        )
        self.shape = segment_shape(self.index)

    @cached_property
    def _graphs(self) -> tuple[ProductEncoder, ScorerGraphs | None]:
        """Return encoder and scorer, checked as workers check them."""
        return open_models(self._directory, Device(), self._settings)

    def open_encoder(self) -> None:
        """Load the encoder now instead of with the first product."""
        _ = self._graphs

    def reads(self, item: StoredItem) -> str:
        """Return a digest of all that the encoder reads of a product: prices only by bin."""
        return f"{item.inputs}:{attribute_row(item.columns, self._spec.encoder.attributes)[-1]}"

    def known_vectors(self, item: StoredItem, encoded: EncodedItem | None) -> EncodedItem | None:
        """Return the vectors of a product that needs no encoding: the same was encoded before."""
        if encoded is None and item.seeded is None:
            return None
        reads = self.reads(item)
        if encoded is not None and encoded.inputs == reads:
            return encoded
        (row,) = self.index.table.rows([item.id])
        if item.inputs != item.seeded or row < 0:
            return None
        price = float(self.index.table.price[row])
        trained = item.columns.model_copy(update={"price": None if np.isnan(price) else price})
        if self.reads(replace(item, columns=trained)) != reads:
            return None
        vectors = self.index.vectors
        known = self.index.embeddings[row], None if vectors is None else vectors[row]
        return EncodedItem(item.id, item.revision, item.seq, reads, *known)

    def encode(self, items: Sequence[StoredItem], picture_of: PictureOf) -> list[EncodedItem]:
        """Encode products; one that cannot be encoded gets its problem and no vectors.

        A product whose picture is missing or damaged is encoded by its text, if it has any.
        """
        inputs, problems = [], []
        for item in items:
            picture, problem = _picture(item, picture_of)
            inputs.append(ProductInput(item.columns, picture, ""))
            problems.append(problem)
        results = self._encode(inputs)
        again = [
            at
            for at, result in enumerate(results)
            if isinstance(result, NewshelfError) and inputs[at].picture and items[at].columns.text()
        ]
        for at, result in zip(
            again, self._encode([replace(inputs[at], picture=None) for at in again]), strict=True
        ):
            problems[at], results[at] = str(results[at]), result
        encoded = project(results, self._graphs[1])
        rows = []
        for item, found, problem in zip(items, encoded, problems, strict=True):
            row = EncodedItem(item.id, item.revision, item.seq, self.reads(item), None, None)
            if isinstance(found, Encoded):
                row = replace(row, embedding=found.embedding, vector=found.vector, problem=problem)
            else:
                row = replace(row, problem=problem or found.message)
            rows.append(row)
        return rows

    def _encode(self, inputs: Sequence[ProductInput]) -> list[Encoding | NewshelfError]:
        encoder, _ = self._graphs
        try:
            return encoder.encode(inputs, StageTimer())
        except Exception:
            if len(inputs) == 1:
                _LOG.exception("a product could not be encoded")
                return [NewshelfError("internal error; see the shelf's log")]
        # Only the product that the code fails for gets an error.
        return [result for one in inputs for result in self._encode([one])]

    def segment(
        self, puts: Sequence[tuple[StoredItem, EncodedItem]], removed: Sequence[str]
    ) -> Segment:
        """Return the segment of products with their vectors, and of ids that are removed."""
        items = [item for item, _ in puts]
        table, rows = self.index.table, self.index.table.rows([item.id for item in items])
        popularity = [float(table.popularity[row]) if row >= 0 else 0.0 for row in rows]
        columns = {
            name: [getattr(item.columns, name) for item in items]
            for name in INDEX_COLUMNS
            if name != "popularity"
        }
        found, vectors, width = [one.embedding for _, one in puts], None, self.shape.vector
        embeddings = np.array(found, np.float32).reshape(-1, self.shape.embedding)
        if width is not None:
            vectors = np.array([one.vector for _, one in puts], np.float32).reshape(-1, width)
        nearest, shares = self._neighbours(embeddings, rows < 0)
        return Segment(
            columns={**columns, "popularity": popularity},
            extras=[item.columns.attributes for item in items],
            knowledge=[
                (row, *said)
                for row, item in enumerate(items)
                for said in table.known.reader.statements(_texts(item))
            ],
            embeddings=embeddings,
            vectors=vectors,
            origin=rows,
            nearest=nearest,
            shares=shares,
            removed=list(removed),
        )

    def fold(self, folder: Path, current: Current, name: str) -> None:
        """Write a new base index of what is current in the version's folder."""
        fold(folder, current, name, LiveIndex.of(self.index))

    def _neighbours(
        self, embeddings: FloatArray, new: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Return the nearest trained rows and shares of new products; 0 for the others."""
        count = (len(embeddings), self.shape.nearest)
        nearest, shares = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.float32)
        if new.any() and self.shape.nearest:
            nearest[new], shares[new] = nearest_shares(embeddings[new], self.index.embeddings)
        return nearest, shares


def _texts(item: StoredItem) -> dict[str, str | None]:
    columns, style = item.columns, item.columns.attributes.get("style")
    texts = columns.model_dump(exclude={"price", "created_at", "attributes"})
    return {**texts, "style": style if isinstance(style, str) else None}


def _picture(item: StoredItem, picture_of: PictureOf) -> tuple[bytes | None, str | None]:
    if item.picture is None:
        return None, None
    try:
        return picture_of(item.picture), None
    except NewshelfError as error:
        return None, error.message
