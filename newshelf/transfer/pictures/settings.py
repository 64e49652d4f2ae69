"""What may be chosen when the image tower is tuned."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["StageSettings", "TowerSettings", "TuneMode"]

TuneMode = Literal["heads-only", "last-stage", "full"]
Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TowerSettings(_Section):
    """Fine-tuning of the image tower."""

    mode: TuneMode = "last-stage"
    """``heads-only`` trains a new head on frozen features, ``last-stage`` also what works at
    the tower's lowest resolution, ``full`` everything."""
    stage: int = -3
    """The head reads this stage of the tower, counted like a Python index; -1 is its pooled
    output. For things ImageNet has no name for, a stage before the last says more."""
    grids: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 3)
    """The stage's map is averaged over 1 × 1, 2 × 2 … cells: what is where in the picture."""
    size: Annotated[int, Field(ge=32)] = 160
    """Height and width of the tower's input in pixels; a smaller one costs less, squared."""
    epochs: Positive = 20
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Of the last stage; the head learns ``head_rate`` times as fast."""
    head_rate: Annotated[float, Field(gt=0)] = 3.0
    decay: Annotated[float, Field(ge=1)] = 2.6
    """Each stage learns so many times slower than the one after it."""
    thaw_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs after which one more stage is thawed; 0 thaws all of the mode at once."""
    l2_sp: Annotated[float, Field(ge=0)] = 1e-2
    """λ of the distance to the source weights."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Of the head, which has no source weights to stay near to."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    balance: Literal["sampler", "weights", "none"] = "sampler"
    """Draw each class as often as the others, weigh its loss, or take the rows as they are."""
    augment: bool = True
    """Crops, flips, turns and light of the pictures learned from."""
    views: Positive = 6
    """``last-stage``: so many augmented views of each picture are computed beforehand."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of each class that stops the training early; unused where a class has fewer than
    ten pictures."""
    patience: Positive = 6
    bf16: bool = True


class StageSettings(_Section):
    """Features from inner stages of the frozen tower."""

    stages: Annotated[tuple[int, ...], Field(min_length=1)] = (-4, -3)
    """Which, counted like a Python index; -1 is the pooled output of the whole tower."""
    grids: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 3)
    """As of ``TowerSettings``."""
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (160, 224)
    """The picture is read at each of these heights and widths in pixels."""
    bf16: bool = True
