"""The index of a catalogue, and its golden products with the float32 graphs' outputs."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from newshelf.attributes.build import FACTS_FILE, LEXICON_FILE, read_facts
from newshelf.attributes.lexicon import ATTRIBUTES, read_lexicon
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import event_weights
from newshelf.catalog.robots import counted_events
from newshelf.catalog.schema import ITEM_COLUMNS
from newshelf.config import EventWeights, RobotSettings
from newshelf.errors import RequestError, VersionMismatch
from newshelf.nn.checkpoint import KNOWLEDGE_FOLDER, Checkpoint, load_checkpoint
from newshelf.nn.inputs import decode_picture
from newshelf.nn.numpy_scorer import Pooling
from newshelf.nn.spec import ImageInput, read_spec
from newshelf.serving.encoder_predictor import open_encoder
from newshelf.serving.golden import write_golden
from newshelf.serving.index import IndexKnowledge, IndexManifest
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.recommender_predictor import open_scorer
from newshelf.serving.runtimes.base import Device
from newshelf.serving.search.build import ANN_ITEMS
from newshelf.serving.settings import ServingSettings


def build_index(
    checkpoint_dir: Path,
    catalog: Catalog,
    out: Path,
    *,
    ann_items: int = ANN_ITEMS,
    weights: EventWeights | None = None,
    robots: RobotSettings | None = None,
) -> IndexManifest:
    """Write the index of ``catalog`` with the checkpoint's embeddings.

    Where the checkpoint has a folder ``knowledge``, what is known of the products beyond
    their columns goes along, for filters and reasons.

    Args:
        checkpoint_dir: made from this very catalogue.
        catalog: items, events and baskets.
        out: replaced as a whole. Inside an export's folder, write it after ``export_model``,
            which replaces that folder.
        ann_items: with more items, the search among them is approximate.
        weights: of the events by type, for the popularity; None if all are equal.
        robots: which events count; None counts all.

    Raises:
        VersionMismatch: the catalogue has other items than the checkpoint, or than the
            knowledge.
        WeightsError: the checkpoint cannot be loaded.
        CatalogError: the knowledge is damaged.
    """
    checkpoint = load_checkpoint(checkpoint_dir)
    ids, embeddings = checkpoint.embeddings()
    if ids != list(catalog.items["id"]):
        raise VersionMismatch(
            f"the catalogue {catalog.folder} has other products than the model was trained on "
            f"({len(catalog.items)} and {len(ids)}): train again"
        )
    items = catalog.items.assign(popularity=popularity(catalog, weights, robots))
    return write_index(
        out,
        encoder_version=checkpoint.version,
        items=items.drop(columns=[*(set(ITEM_COLUMNS) - set(INDEX_COLUMNS))]),
        embeddings=embeddings.numpy(),
        vectors=_vectors(checkpoint, embeddings),
        blend=checkpoint.blend,
        knowledge=_knowledge(checkpoint_dir / KNOWLEDGE_FOLDER, ids),
        ann_items=ann_items,
        pooling=_pooling(checkpoint),
    )


def popularity(
    catalog: Catalog, weights: EventWeights | None = None, robots: RobotSettings | None = None
) -> NDArray[np.float64]:
    """``(items,)``: weight of the events with each item and of baskets with it, 0 for a new one."""
    counts = pd.Series(0.0, index=catalog.items["id"])
    if catalog.events is not None:
        events = catalog.events if robots is None else counted_events(catalog.events, robots)
        weight = pd.Series(event_weights(events, weights), index=events.index, dtype=np.float64)
        counts = counts.add(weight.groupby(events["item_id"]).sum(), fill_value=0.0)
    if catalog.baskets is not None:
        counts = counts.add(catalog.baskets["item_id"].value_counts(), fill_value=0.0)
    ordered: NDArray[np.float64] = counts.reindex(catalog.items["id"]).to_numpy(dtype=np.float64)
    return ordered


def _vectors(checkpoint: Checkpoint, embeddings: torch.Tensor) -> NDArray[np.float32] | None:
    if checkpoint.scorer is None:
        return None
    with torch.inference_mode():
        vectors: torch.Tensor = checkpoint.scorer.project(embeddings)
    return vectors.numpy()


def _pooling(checkpoint: Checkpoint) -> Pooling | None:
    if checkpoint.scorer is None:
        return None
    score = checkpoint.scorer.score
    return Pooling(
        sharpness=score.log_sharpness.exp().item(),
        weight=score.weight_logit.sigmoid().item(),
        scale=score.log_scale.exp().item(),
    )


def _knowledge(folder: Path, ids: Sequence[str]) -> IndexKnowledge | None:
    """Return what serving needs of ``build_knowledge``'s folder, or None without one."""
    if not folder.is_dir():
        return None
    facts = read_facts(folder / FACTS_FILE).select(["item_id", "attribute", "value", "confidence"])
    row_of = {item: row for row, item in enumerate(ids)}
    rows: list[tuple[int, str, str, float]] = []
    for item, attribute, value, confidence in zip(*facts.to_pydict().values(), strict=True):
        if item not in row_of:
            raise VersionMismatch(
                f"{folder} speaks of the product {item!r}, which the catalogue does not have: "
                "train again"
            )
        if attribute in ATTRIBUTES:
            rows.append((row_of[item], attribute, value, confidence))
    return IndexKnowledge(rows, read_lexicon(folder / LEXICON_FILE))


_PRODUCTS = 16
_FIELDS = ("title", "description", "product_type", "brand", "color", "material", "size", "price")
_MOST_CHARS = 500
"""Of a field: the tokenizer cuts longer texts anyway."""


def export_golden(export_dir: Path, catalog: Catalog, *, seed: int = 0) -> None:
    """Write ``golden.json``, which archives carry and workers compare at load.

    Args:
        export_dir: from ``export_model``.
        catalog: the one that the model was trained on.
        seed: equal seeds draw equal products.

    Raises:
        SetupError: a graph is missing.
    """
    spec = read_spec(export_dir)
    requests: list[dict[str, object]] = []
    products = catalog.products()
    for row in np.random.default_rng(seed).permutation(len(products)):
        product = products[row]
        fields = {name: getattr(product, name) for name in _FIELDS}
        request = {
            name: value[:_MOST_CHARS] if isinstance(value, str) else value
            for name, value in fields.items()
            if value is not None
        }
        if picture := _picture(catalog.image_path(int(row)), spec.encoder.image):
            request["image"] = picture
        if "image" in request or (spec.encoder.text is not None and product.text()):
            requests.append(request)
        if len(requests) == _PRODUCTS:
            break
    # Float32 by ONNX Runtime: what the parity gate has compared with the trained model.
    settings = ServingSettings(runtime="onnxruntime")
    encoder = open_encoder(export_dir, spec, Device(), settings)
    scorer = open_scorer(export_dir, spec, settings)
    write_golden(export_dir, requests, encoder, scorer)


def _picture(path: Path | None, tower: ImageInput | None) -> str | None:
    """A small JPEG in base64, of what the tower sees; None without a readable picture."""
    if path is None or tower is None:
        return None
    try:
        pixels = decode_picture(path.read_bytes(), tower)
    except (RequestError, OSError):
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()
