"""The settings of a run, read once from a TOML file; unknown keys are refused."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newshelf.errors import SettingsError

__all__ = [
    "ArchiveSettings",
    "AttributeSettings",
    "EvaluationSettings",
    "FinetuneSettings",
    "ImageTowerSettings",
    "ModelServingSettings",
    "SampleSettings",
    "ScorerSettings",
    "Settings",
    "TextTowerSettings",
    "load_settings",
]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleSettings(_Section):
    """The drawn sample shop."""

    products: Annotated[int, Field(ge=60)] = 1300
    shoppers: Positive = 1100


class ImageTowerSettings(_Section):
    """Where the image tower comes from."""

    architecture: str = "tf_efficientnet_lite0"
    """A timm model name; torchvision calls the tensors of ``resnet50`` the same."""
    weights: str = "packaged"
    """``packaged``, a path to a ``state_dict`` (.pt, .pth, .safetensors), or ``hub``."""
    size: Positive = 224
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0


class TextTowerSettings(_Section):
    """Where the text tower comes from."""

    weights: str = "packaged"
    """``packaged``, a folder with a transformers model, or a hub name."""
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 64


class AttributeSettings(_Section):
    """The attribute tower."""

    buckets: Positive = 4096
    width: Positive = 32
    price_bins: Positive = 16


class FinetuneSettings(_Section):
    """Fine-tuning on the source category, then a new head on the target category."""

    source: str = "auto"
    """First level of ``product_type`` to learn from; ``auto`` takes the richest."""
    epochs: Positive = 12
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    target_shots: Positive = 20
    """Labelled products per class that the target head may see."""
    target_epochs: Positive = 60


class ScorerSettings(_Section):
    """The Siamese scorer, trained contrastively."""

    width: Positive = 128
    epochs: Positive = 12
    max_steps: Positive = 500
    """Batches in all, whatever the number of events: what the training may cost."""
    batch_size: Positive = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    max_history: Positive = 50
    temperature: Annotated[float, Field(gt=0)] = 0.07
    weight_decay: Annotated[float, Field(ge=0)] = 0.05


class EvaluationSettings(_Section):
    """Splits and cut-offs of ``evaluate``."""

    k: tuple[Positive, ...] = (10, 20)
    test_fraction: Fraction = 0.2
    """The latest share of the events, or the share of baskets, kept for testing."""
    cold_fraction: Fraction = 0.15
    """Share of the items held out whole for the item-cold split."""


class ModelServingSettings(_Section):
    """One model's section of its archive's ``model-config.yaml``."""

    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    max_batch_delay_ms: Annotated[int, Field(ge=1, le=1000)] = 3
    """At least 1: TorchServe reads 0 as 100 ms."""
    workers: Positive = 1
    threads: Annotated[int, Field(ge=0)] = 0
    """Intra-op threads per worker; 0 divides the cores among the workers."""
    decode_threads: Positive = 2
    response_timeout_s: Positive = 30
    queue_size: Positive = 64


class ArchiveSettings(_Section):
    """What is archived, and how it is served."""

    runtime: Literal["onnxruntime", "torchscript"] = "onnxruntime"
    encoder: ModelServingSettings = ModelServingSettings()
    recommender: ModelServingSettings = ModelServingSettings()


class Settings(_Section):
    """The whole file. Every section and key may be left out."""

    seed: int = 7
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads for training; 0 takes every core."""
    sample: SampleSettings = SampleSettings()
    image: ImageTowerSettings | None = ImageTowerSettings()
    text: TextTowerSettings | None = TextTowerSettings()
    attributes: AttributeSettings = AttributeSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    scorer: ScorerSettings = ScorerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    archive: ArchiveSettings = ArchiveSettings()


def load_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises:
        SettingsError: with the file, the key and the reason.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    try:
        return Settings.model_validate(table)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(f"{path}: {reasons}") from error
