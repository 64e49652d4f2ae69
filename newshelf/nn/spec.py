"""Description of a trained model for export and serving (``model.json``); no torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from newshelf.config import Fraction
from newshelf.errors import WeightsError
from newshelf.files import StrictModel, read_json

SPEC_FILE = "model.json"

FusionKind = Literal["early", "late", "attention"]
HeadName = Literal["source_type", "target_type", "color", "material"]
HEADS: tuple[HeadName, ...] = ("source_type", "target_type", "color", "material")

ATTRIBUTE_COLUMNS = (
    "top_type",
    "product_type",
    "brand",
    "color",
    "second_color",
    "material",
    "second_material",
    "size",
    "price",
)
"""Columns of the ``attributes`` input, in order; 0 stands for absent in each."""


class ImageInput(StrictModel):
    """The image tower and its input."""

    architecture: str
    """A timm model name."""
    features: int
    """Width of the tower's output."""
    size: int = 224
    """Height and width of the input in pixels."""
    crop: float = 1.0
    """Side of the centre crop relative to the picture's short side."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stages: tuple[int, ...] = ()
    """Inner stages that heads read, counted like a Python index; -1 is the pooled output."""
    grids: tuple[int, ...] = ()
    """The maps of the stages are averaged over 1 × 1, 2 × 2 … cells."""
    inner: int = 0
    """Width of the inner stages' part of the output, which follows the pooled features."""


class TextInput(StrictModel):
    """The text tower (BERT family) and its input."""

    architecture: dict[str, object]
    """The transformers configuration, from ``config.to_dict()``."""
    features: int
    max_tokens: int = 64
    pad_token_id: int = 0
    weights: Literal["packaged", "packaged-multilingual", ""] = ""
    """Empty for weights that are not packaged."""
    packed_words: bool = False
    """Whether the vocabulary's rows are in 4 bits."""


class AttributeInput(StrictModel):
    """Hashed categories and a binned price."""

    buckets: int = 4096
    """Rows of each hashed column's embedding table."""
    width: int = 32
    """Width of one column's embedding."""
    price_edges: tuple[float, ...] = ()
    """Increasing bin edges, in the catalogue's currency."""


class FusionSpec(StrictModel):
    """Settings of the fusion of the towers' features."""

    kind: FusionKind = "attention"
    width: int = 512
    heads: int = 8
    dropout: float = 0.1


class EncoderSpec(StrictModel):
    """The encoder. A tower that is None is absent, and its input is ignored."""

    image: ImageInput | None
    text: TextInput | None
    attributes: AttributeInput
    fusion: FusionSpec
    embedding: int = 512
    """Width of the embedding."""
    labels: dict[HeadName, tuple[str, ...]]
    """Class names of each head; a head without classes is left out."""
    inner_heads: dict[HeadName, Fraction] = Field(default_factory=dict)
    """Share of the inner stages in the logits of a head, for products with a picture."""


class ScorerSpec(StrictModel):
    """The Siamese scorer."""

    width: int = 128
    """Width of the space both sides are projected to."""
    hidden: int = 512
    dropout: float = 0.2
    max_history: int = 50
    """The most recent items of a history that are read."""


class BlendSpec(StrictModel):
    """Signals added to the scorer's score; see ``newshelf.nn.blend``."""

    weights: dict[str, float]
    """By signal: ``siamese``, ``content``, and one per link."""
    floor: float = 1e-3
    """ε, added to a link before its logarithm."""
    temperature: float = 0.1
    """τ of the content signal."""


class ModelSpec(StrictModel):
    """Encoder, and scorer (None without events or baskets)."""

    format: Literal[2] = 2
    catalog_name: str
    encoder: EncoderSpec
    scorer: ScorerSpec | None
    blend: BlendSpec | None = None
    """None without a scorer."""


def read_spec(directory: Path) -> ModelSpec:
    """Return the description of a checkpoint, an export or an unpacked archive."""
    path = directory / SPEC_FILE
    try:
        return ModelSpec.model_validate(read_json(path))
    except OSError as error:
        raise WeightsError(f"{path} is missing: train first, or export again") from error
    except (ValidationError, ValueError) as error:
        raise WeightsError(f"{path} is not of this format: {error}") from error
