"""The frozen part of a tower: run once beforehand, not once per epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.progress import track
from torch import Tensor, nn

from newshelf.nn.spec import ImageInput
from newshelf.transfer.pictures.augment import augment_pictures
from newshelf.transfer.pictures.settings import TowerSettings
from newshelf.transfer.pictures.stage_features import normalise_pixels
from newshelf.transfer.run import Run

__all__ = ["Activations", "Trunk"]

_BATCH = 32


@dataclass(frozen=True)
class Activations:
    """What the trained part of the tower is given for n pictures."""

    plain: Tensor
    """``(n, …)``: of the pictures as they are; uint8 pixels when nothing is frozen."""
    views: Tensor
    """``(views, n, …)``: of augmented pictures; of no view where they are made anew."""
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
    are kept in half precision; without, pictures are augmented anew in every epoch.
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
