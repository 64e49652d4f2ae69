"""Quality of a cheaper encoder compared with the float32 one, on products of the catalogue.

Products are encoded as a whole and one modality at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import Product, category_levels, split_values
from newshelf.errors import RequestError
from newshelf.nn.inputs import Tokenizer, attribute_row, decode_picture, prepare_pictures
from newshelf.nn.spec import EncoderSpec, HeadName, ImageInput

LEAST_COSINE = 0.99
"""Of the mean product."""
LEAST_LOW_COSINE = 0.98
"""Of the one that 95 % of the products are better than."""
LEAST_OVERLAP = 0.9
MOST_DROP = 1.0
_NEIGHBOURS = 10
_LOW = 5

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Quality:
    """One candidate in one view."""

    view: str
    products: int
    cosine_mean: float
    cosine_low: float
    """The 5th percentile."""
    cosine_min: float
    overlap: float | None
    """Mean share of the ten nearest that stay; None with too few products."""
    accuracy_drop: float | None
    """Points by which fewer labels are right, over all heads; None without labels."""
    labels: int


def measure_quality(
    view: str,
    reference: Outputs,
    outputs: Outputs,
    labels: Mapping[HeadName, NDArray[np.int64]],
) -> Quality:
    """Compare the outputs for the same ``N`` products.

    The neighbours are sought among float32 embeddings on both sides: those of the index are
    float32, whatever encoder serves.

    Args:
        view: a name for the report.
        reference: of the float32 encoder, ``embedding (N, 512)`` and logits.
        outputs: of the candidate.
        labels: by head ``(N,)``, -1 for none.
    """
    expected, actual = reference["embedding"], outputs["embedding"]
    cosine = np.nan_to_num((expected * actual).sum(axis=1), nan=-1.0)
    counts = [_right(values, labels) for values in (reference, outputs)]
    known = int(sum((values >= 0).sum() for values in labels.values()))
    return Quality(
        view=view,
        products=len(cosine),
        cosine_mean=float(cosine.mean()),
        cosine_low=float(np.percentile(cosine, _LOW)),
        cosine_min=float(cosine.min()),
        overlap=_overlap(expected, actual),
        accuracy_drop=100.0 * (counts[0] - counts[1]) / known if known else None,
        labels=known,
    )


def failures(quality: Quality) -> list[str]:
    """Return the broken limits with their values; empty if none is broken."""
    found = []
    for name, value, least in (
        ("mean", quality.cosine_mean, LEAST_COSINE),
        ("5th percentile", quality.cosine_low, LEAST_LOW_COSINE),
    ):
        # Written so that a NaN fails.
        if not value >= least:
            found.append(f"cosine {value:.4f} ({name}), at least {least} is asked for")
    if quality.overlap is not None and not quality.overlap >= LEAST_OVERLAP:
        found.append(f"neighbour overlap {quality.overlap:.3f}, at least {LEAST_OVERLAP}")
    if quality.accuracy_drop is not None and not quality.accuracy_drop <= MOST_DROP:
        found.append(
            f"{quality.accuracy_drop:.1f} points fewer labels right, at most {MOST_DROP:g}"
        )
    return [f"{quality.view}: {reason}" for reason in found]


def _right(outputs: Outputs, labels: Mapping[HeadName, NDArray[np.int64]]) -> int:
    return sum(
        int((outputs[f"{head}_logits"].argmax(axis=1) == values).sum())
        for head, values in labels.items()
    )


def _overlap(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float | None:
    count = min(_NEIGHBOURS, len(expected) - 2)
    if count < 1:
        return None
    wanted, found = (_nearest(queries, expected, count) for queries in (expected, actual))
    shared = [len(set(a) & set(b)) for a, b in zip(wanted, found, strict=True)]
    return float(np.mean(shared)) / count


def _nearest(
    queries: NDArray[np.float32], among: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    similarity = queries @ among.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)[:, :count]


View = Literal["products", "pictures", "texts"]
VIEWS: tuple[View, ...] = ("products", "pictures", "texts")
"""Everything that a product has, its picture alone, and its text alone."""

_BATCH = 8


@dataclass(frozen=True)
class Products:
    """``N`` products."""

    spec: EncoderSpec
    pixels: Sequence[NDArray[np.uint8] | None]
    """``(size, size, 3)`` each; None without a picture that can be read."""
    texts: Sequence[str | None]
    """None without a text."""
    tokenizer: Tokenizer | None
    attributes: NDArray[np.int64]
    """``(N, 9)``."""
    labels: dict[HeadName, NDArray[np.int64]]
    """For each head ``(N,)``: the class, or -1."""

    def __len__(self) -> int:
        return len(self.attributes)

    def part(self, rows: slice) -> "Products":
        """Some of them, in their order."""
        return replace(
            self,
            pixels=self.pixels[rows],
            texts=self.texts[rows],
            attributes=self.attributes[rows],
            labels={head: values[rows] for head, values in self.labels.items()},
        )

    def rows(self, view: View) -> NDArray[np.intp]:
        """The products that a view has."""
        if view == "products":
            return np.arange(len(self))
        parts = self.pixels if view == "pictures" else self.texts
        return np.flatnonzero([part is not None for part in parts])

    def batches(self, view: View) -> Iterator[dict[str, NDArray[Any]]]:
        """The encoder's inputs for ``rows(view)``, eight at a time, as in serving."""
        rows = self.rows(view)
        for start in range(0, len(rows), _BATCH):
            yield self._batch(rows[start : start + _BATCH], view)

    def pictures(self) -> list[NDArray[np.uint8]]:
        """Those that there are, ``(size, size, 3)`` each."""
        return [picture for picture in self.pixels if picture is not None]

    def token_rows(self) -> list[dict[str, NDArray[np.int64]]]:
        """The text tower's inputs for each text alone, ``(1, tokens)``."""
        if self.tokenizer is None:
            return []
        pairs = [self.tokenizer.batch([text]) for text in self.texts if text]
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in pairs]

    def _batch(self, rows: NDArray[np.intp], view: View) -> dict[str, NDArray[Any]]:
        images, image_row = self._images(rows if view != "texts" else [], len(rows))
        ids, mask, text_row = self._texts(rows if view != "pictures" else [], len(rows))
        attributes = self.attributes[rows]
        return {
            "image": images,
            "image_row": image_row,
            "input_ids": ids,
            "attention_mask": mask,
            "text_row": text_row,
            "attributes": attributes if view == "products" else np.zeros_like(attributes),
        }

    def _images(
        self, rows: Sequence[int] | NDArray[np.intp], batch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found = {
            at: pixels for at, row in enumerate(rows) if (pixels := self.pixels[row]) is not None
        }
        size = self.spec.image.size if self.spec.image else 1
        if not found or self.spec.image is None:
            return np.zeros((1, 3, size, size), dtype=np.float32), np.array([batch])
        return prepare_pictures(list(found.values()), self.spec.image), np.array(list(found))

    def _texts(
        self, rows: Sequence[int] | NDArray[np.intp], batch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        found = {at: text for at, row in enumerate(rows) if (text := self.texts[row])}
        if not found or self.tokenizer is None:
            one = np.ones((1, 1), dtype=np.int64)
            return one, one, np.array([batch])
        return *self.tokenizer.batch(list(found.values())), np.array(list(found))


def draw_products(
    catalog: Catalog, spec: EncoderSpec, tokenizer_file: Path, count: int, seed: int = 0
) -> Products:
    """Draw at most ``count`` products of ``catalog`` that have a picture or a text.

    A picture that cannot be read is left out, as in training.

    Args:
        catalog: read and checked.
        spec: what the encoder reads.
        tokenizer_file: of the text tower; not read without one.
        count: products.
        seed: equal seeds draw equal products.
    """
    order = np.random.default_rng(seed).permutation(len(catalog.items))
    every = catalog.products()
    tokenizer = None
    if spec.text is not None:
        tokenizer = Tokenizer(tokenizer_file, spec.text.max_tokens, spec.text.pad_token_id)
    chosen: list[Product] = []
    pixels: list[NDArray[np.uint8] | None] = []
    texts: list[str | None] = []
    for row in order:
        picture = _picture(catalog.image_path(int(row)), spec.image)
        text = every[row].text() if tokenizer is not None else ""
        if text and tokenizer is not None and not tokenizer.tokens([text])[0]:
            text = ""  # Absent in training, and in serving.
        if picture is None and not text:
            continue
        chosen.append(every[row])
        pixels.append(picture)
        texts.append(text or None)
        if len(chosen) == count:
            break
    attributes = [attribute_row(product, spec.attributes) for product in chosen]
    return Products(
        spec,
        pixels,
        texts,
        tokenizer,
        np.array(attributes, dtype=np.int64).reshape(len(chosen), -1),
        _labels(chosen, spec),
    )


def _picture(path: Path | None, spec: ImageInput | None) -> NDArray[np.uint8] | None:
    if path is None or spec is None:
        return None
    try:
        return decode_picture(path.read_bytes(), spec)
    except (RequestError, OSError):
        # Training reported its name.
        return None


def _labels(products: Sequence[Product], spec: EncoderSpec) -> dict[HeadName, NDArray[np.int64]]:
    """The catalogue's own labels, as the heads were trained on them."""
    found: dict[HeadName, NDArray[np.int64]] = {}
    for head, classes in spec.labels.items():
        number = {value: at for at, value in enumerate(classes)}
        values = [_value(product, head) for product in products]
        found[head] = np.array([number.get(value, -1) for value in values], dtype=np.int64)
    return {head: labels for head, labels in found.items() if (labels >= 0).any()}


def _value(product: Product, head: HeadName) -> str:
    if head in ("source_type", "target_type"):
        return " > ".join(category_levels(product.product_type))
    return (split_values(product.color if head == "color" else product.material) or ("",))[0]
