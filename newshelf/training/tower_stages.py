"""A timm backbone as a row of stages, to be frozen, thawed, cut and read one by one.

The frozen part of a tower: run once beforehand, not once per epoch.

A stage's map averaged over the cells of grids: what is in the picture, and where.

Features from the inner stages of a frozen tower, with where in the picture they are.

The last stage of an ImageNet tower is made to tell a thousand things apart wherever they
are; for things it has no name for, the stages before it say more (Yosinski et al., 2014;
head2toe, Evci et al., 2022). A ring and a bracelet differ in where the metal runs, so a
stage's map is averaged over the cells of grids.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.errors import TrainingError
from newshelf.files import StrictModel, write_aside
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import ImageInput
from newshelf.training.picture_data import (
    augment_pictures,
)
from newshelf.training.run import Run

TuneMode = Literal["heads-only", "last-stage", "full"]


Positive = Annotated[int, Field(gt=0)]


class TowerSettings(StrictModel):
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
    """Ratio of the learning rates of a stage and the one before it."""
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
    """Number of augmented views per picture that ``last-stage`` computes in advance."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of each class that stops the training early; unused where a class has fewer than
    ten pictures."""
    patience: Positive = 6
    bf16: bool = True


class StageSettings(StrictModel):
    """Features from inner stages of the frozen tower."""

    stages: Annotated[tuple[int, ...], Field(min_length=1)] = (-4, -3)
    """Which, counted like a Python index; -1 is the pooled output of the whole tower."""
    grids: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 3)
    """As of ``TowerSettings``."""
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (160, 224)
    """The picture is read at each of these heights and widths in pixels."""
    bf16: bool = True


class TowerStages:
    """The modules of ``tower`` in the order they run; they are shared, not copied.

    ``run(x, 0, len(stages))`` is what ``tower(x)`` computes.

    Raises:
        TrainingError: the architecture is neither of EfficientNet's nor of ResNet's kind.
    """

    def __init__(self, tower: ImageTower) -> None:
        named = _stages(tower.backbone)
        self.names = tuple(name for name, _ in named)
        self.modules = [module for _, module in named]

    def __len__(self) -> int:
        return len(self.modules)

    def position(self, stage: int) -> int:
        """A stage counted like a Python index, counted from 0.

        Raises:
            TrainingError: the tower has no such stage.
        """
        if not -len(self) <= stage < len(self):
            raise TrainingError(
                f"stage {stage}: the tower has {len(self)}, from 0 to {len(self) - 1} "
                f"({', '.join(self.names)})"
            )
        return stage % len(self)

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """From the input of stage ``start`` to the output of the stage before ``stop``."""
        for module in self.modules[start:stop]:
            x = module(x)
        return x

    @torch.no_grad()
    def last(self, size: int) -> int:
        """The first stage that works at the lowest resolution, with pictures of ``size``."""
        x = torch.zeros(1, 3, size, size)
        sides = []
        for module in self.modules[:-1]:
            x = module(x)
            sides.append(x.shape[-1])
        return sides.index(min(sides))


def _stages(backbone: Any) -> list[tuple[str, nn.Module]]:
    parts = {name for name, _ in backbone.named_children()}
    if {"conv_stem", "bn1", "blocks", "conv_head", "bn2", "global_pool"} <= parts:
        stem = nn.Sequential(backbone.conv_stem, backbone.bn1)
        top = nn.Sequential(backbone.conv_head, backbone.bn2, backbone.global_pool)
        blocks = [(f"blocks.{at}", block) for at, block in enumerate(backbone.blocks)]
        return [("stem", stem), *blocks, ("top", top)]
    layers = [f"layer{at}" for at in (1, 2, 3, 4)]
    if {"conv1", "bn1", "act1", "maxpool", "global_pool", *layers} <= parts:
        stem = nn.Sequential(backbone.conv1, backbone.bn1, backbone.act1, backbone.maxpool)
        inner = [(name, getattr(backbone, name)) for name in layers]
        return [("stem", stem), *inner, ("top", backbone.global_pool)]
    raise TrainingError(
        f"{type(backbone).__name__} cannot be tuned stage by stage: use an EfficientNet or a "
        "ResNet, or mode = 'heads-only'"
    )


_MAP_DIMENSIONS = 4


class PyramidPool(nn.Module):
    """Spatial pyramid (Lazebnik et al., 2006): means over 1 × 1, 2 × 2 … cells.

    Each grid is one block of unit length, so that none drowns the others. What has no
    extent, such as the pooled output of a tower, has one block whatever the grids.

    Shape: ``(N, C, h, w)`` or ``(N, C)`` → ``(N, C · Σ grid²)`` or ``(N, C)``, float32.
    """

    def __init__(self, grids: Sequence[int]) -> None:
        super().__init__()
        self._grids = tuple(grids)

    def forward(self, x: Tensor) -> Tensor:
        """Unit-length blocks side by side."""
        if x.ndim < _MAP_DIMENSIONS:
            return F.normalize(x.float(), dim=1)
        blocks = [F.adaptive_avg_pool2d(x.float(), grid).flatten(1) for grid in self._grids]
        return torch.cat([F.normalize(block, dim=1) for block in blocks], dim=1)


_BATCH = 32


class StageFeatures(nn.Module):
    """Pictures to pooled maps of some stages, side by side, each of unit length.

    Shape: ``(N, 3, size, size)`` float32 → ``(N, Σ channels · Σ grid²)`` float32.

    Raises:
        TrainingError: a stage the tower does not have.
    """

    def __init__(self, tower: ImageTower, settings: StageSettings) -> None:
        super().__init__()
        self._stages = TowerStages(tower)
        self.parts = nn.ModuleList(self._stages.modules)
        self._wanted = sorted({self._stages.position(at) for at in settings.stages})
        self._pool = PyramidPool(settings.grids)

    def forward(self, image: Tensor) -> Tensor:
        """Unit-length blocks side by side."""
        blocks: list[Tensor] = []
        x = image
        for at, stage in enumerate(self.parts[: self._wanted[-1] + 1]):
            x = stage(x)
            if at in self._wanted:
                blocks.append(self._pool(x))
        return torch.cat(blocks, dim=1)


def normalise_pixels(pixels: Tensor, spec: ImageInput, size: int | None = None) -> Tensor:
    """``(n, 3, S, S)`` uint8 → ``(n, 3, size, size)`` float32 as the tower was trained on."""
    x = pixels.float()
    if size is not None and size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    mean = torch.tensor(spec.mean).view(1, 3, 1, 1)
    std = torch.tensor(spec.std).view(1, 3, 1, 1)
    return ((x / 255 - mean) / std).to(memory_format=torch.channels_last)


@torch.inference_mode()
def stage_features(
    tower: ImageTower, spec: ImageInput, pixels: Tensor, settings: StageSettings
) -> Tensor:
    """``(n, features)`` float32: all sizes of ``settings``, side by side.

    Args:
        tower: in ``eval`` mode after; its weights stay as they are.
        spec: its mean and standard deviation.
        pixels: ``(n, 3, S, S)`` uint8.
        settings: stages, grids and sizes.
    """
    read = StageFeatures(tower.to(memory_format=torch.channels_last), settings).eval()
    columns = []
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        for size in settings.sizes:
            chunks = [
                read(normalise_pixels(chunk, spec, size)).float() for chunk in pixels.split(_BATCH)
            ]
            columns.append(torch.cat(chunks))
    return torch.cat(columns, dim=1).clone()


@dataclass(frozen=True)
class Activations:
    """Inputs of the trained part of the tower for n pictures."""

    plain: Tensor
    """``(n, …)``: of the pictures as they are; uint8 pixels when nothing is frozen."""
    views: Tensor
    """``(views, n, …)``: of augmented pictures; of no view if they are computed in every epoch."""
    spec: ImageInput
    augment: bool
    bf16: bool

    def learned_from(self, rows: Tensor) -> Tensor:
        """``(len(rows), …)`` float32: one view of each, drawn by torch's global generator."""
        if len(self.views):
            drawn = torch.randint(len(self.views), (len(rows),))
            return self.views[drawn, rows].float()
        if self.plain.dtype == torch.uint8 and self.augment:
            return normalise_pixels(augment_pictures(self.plain[rows]), self.spec)
        return self.tested_on(rows)

    def tested_on(self, rows: Tensor) -> Tensor:
        """``(len(rows), …)`` float32: the pictures as they are."""
        if self.plain.dtype == torch.uint8:
            return normalise_pixels(self.plain[rows], self.spec)
        return self.plain[rows].float()

    @torch.no_grad()
    def plain_features(self, tail: nn.Module) -> Tensor:
        """``(n, features)`` float32 through the rest of the tower."""
        chunks = []
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            for rows in torch.arange(len(self.plain)).split(_BATCH):
                chunks.append(tail(self.tested_on(rows)).float())
        return torch.cat(chunks)


class Trunk:
    """The first stages of a tower, frozen.

    With a frozen part, ``settings.views`` augmented views of each picture pass it once and
    are kept in half precision; without, pictures are augmented again in every epoch.
    """

    def __init__(
        self, stages: Sequence[nn.Module], spec: ImageInput, settings: TowerSettings
    ) -> None:
        self._stages = nn.Sequential(*stages)
        self._spec = spec
        self._settings = settings

    def read(self, pixels: Tensor, learn: Tensor, run: Run) -> Activations:
        """Run the frozen part.

        Args:
            pixels: ``(n, 3, S, S)`` uint8, resized to the tuning's size where it differs.
            learn: positions that are learned from, of which views are made.
            run: seed and console.
        """
        settings, spec = self._settings, self._spec
        pixels = _resize(pixels, spec.size)
        if not len(self._stages):
            return Activations(pixels, pixels[:0], spec, settings.augment, settings.bf16)
        self._stages.requires_grad_(False)
        plain = self._run(pixels, run, "pictures")
        views = plain[:0]
        if settings.augment:
            generator = torch.get_rng_state()
            torch.manual_seed(run.seed)
            seen = []
            for view in range(settings.views):
                some = torch.zeros_like(plain)
                some[learn] = self._run(pixels[learn], run, f"view {view + 1}", augment=True)
                seen.append(some)
            views = torch.stack(seen)
            torch.set_rng_state(generator)
        return Activations(plain, views, spec, settings.augment, settings.bf16)

    @torch.no_grad()
    def _run(self, pixels: Tensor, run: Run, what: str, *, augment: bool = False) -> Tensor:
        parts = []
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.bf16):
            for chunk in track(
                pixels.split(_BATCH), what, console=run.console, disable=run.quiet, transient=True
            ):
                changed = augment_pictures(chunk) if augment else chunk
                parts.append(self._stages(normalise_pixels(changed, self._spec)).half())
        return torch.cat(parts)


def _resize(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-1] == size:
        return pixels
    resized = nn.functional.interpolate(
        pixels.float(), size=(size, size), mode="bilinear", antialias=True
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


class View(NamedTuple):
    """A way of presenting a picture to the tower."""

    size: int
    """Height and width in pixels."""
    mirrored: bool = False
    """Left and right exchanged."""


def view_features(
    tower: ImageTower,
    spec: ImageInput,
    pixels: Tensor,
    views: Sequence[View],
    cache: Path,
) -> Tensor:
    """Return the tower's features of each view: ``(views, n, features)`` float32, of unit length.

    Args:
        tower: its pooled output is read; in ``eval`` mode after, its weights stay as they are.
        spec: its mean and standard deviation.
        pixels: ``(n, 3, S, S)`` uint8.
        views: at least one.
        cache: a folder; see :func:`cached_stage_features`.

    Raises:
        TrainingError: no view is given.
    """
    if not views:
        raise TrainingError("features of no view are asked for: give one View(size) or more")
    seen = []
    for size, mirrored in views:
        shown = pixels.flip(-1) if mirrored else pixels
        pooled = StageSettings(stages=(-1,), grids=(1,), sizes=(size,))
        seen.append(cached_stage_features(tower, spec, shown, pooled, cache))
    return torch.stack(seen)


def cached_stage_features(
    tower: ImageTower, spec: ImageInput, pixels: Tensor, settings: StageSettings, cache: Path
) -> Tensor:
    """``stage_features``, kept in ``cache`` under a digest of all that they follow from.

    Other pixels, weights or settings are computed and kept separately; nothing is ever removed.
    """
    digest = hashlib.sha256((spec.model_dump_json() + settings.model_dump_json()).encode())
    for name, tensor in (*tower.state_dict().items(), ("pixels", pixels)):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    path = cache / f"{digest.hexdigest()[:24]}.safetensors"
    if path.exists():
        return load_file(path)["rows"]
    rows = stage_features(tower, spec, pixels, settings)
    with write_aside(path) as aside:
        save_file({"rows": rows}, aside)
    return rows
