"""Golden products: drawn from the catalogue, with what the float32 graphs answer to them."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from newshelf.catalog import Catalog
from newshelf.errors import RequestError
from newshelf.nn.inputs import decode_picture
from newshelf.nn.spec import ImageInput, read_spec
from newshelf.serving.golden import write_golden
from newshelf.serving.limits import ServingSettings
from newshelf.serving.load import open_encoder
from newshelf.serving.load_recommender import open_scorer
from newshelf.serving.runtimes import Device

__all__ = ["export_golden"]

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
    scorer = open_scorer(export_dir, spec, Device(), settings)
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
