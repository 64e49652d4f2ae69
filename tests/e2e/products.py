"""Products and pictures of the served catalogue, in the forms that requests take."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import Product

ENCODER = "/predictions/encoder"
RECOMMENDER = "/predictions/recommender"
JSON = "application/json"


def whole_row(catalog: Catalog) -> int:
    """The first row that has every field of a product, and a picture."""
    fields = list(Product.model_fields)
    complete = catalog.items[fields].notna().all(axis=1)
    return next(row for row in np.flatnonzero(complete) if catalog.image_path(row) is not None)


def product_of(catalog: Catalog, row: int) -> dict[str, Any]:
    """Its fields as JSON gives them; absent ones are left out."""
    record = catalog.items.iloc[row]
    known = {name: record[name] for name in Product.model_fields if record[name] == record[name]}
    return {name: value for name, value in known.items() if value is not None}


def picture_of(catalog: Catalog, row: int) -> bytes:
    """Its picture file's bytes."""
    path = catalog.image_path(row)
    assert path is not None
    return path.read_bytes()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture file of this format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def form_of(product: Mapping[str, Any]) -> dict[str, str]:
    """The text parts of a form."""
    return {name: str(value) for name, value in product.items()}


def check_embedding(embedding: object) -> np.ndarray:
    """Give back 512 numbers of unit length as an array, or fail."""
    vector = np.array(embedding, dtype=np.float64)
    assert vector.shape == (512,)
    assert abs(np.linalg.norm(vector) - 1) < 1e-5
    return vector
