"""Made-up inputs for the graphs: the same on every machine, and shaped like real ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, AttributeInput, EncoderSpec, ImageInput, TextInput

__all__ = ["Batch", "encoder_inputs", "history_inputs", "unit_vectors"]

_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Batch:
    """Which of a batch's rows have what."""

    size: int
    pictures: Sequence[int]
    texts: Sequence[int]
    attributes: Sequence[int]
    tokens: int
    """Length of the longest text, with its special tokens."""


def encoder_inputs(spec: EncoderSpec, batch: Batch, seed: int = 0) -> tuple[Tensor, ...]:
    """The encoder's six inputs, in the order of ``Encoder.forward``.

    Where no row has a picture or a text, one padding entry of row ``batch.size`` stands
    in, as in serving.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures = list(batch.pictures) or [batch.size]
    texts = list(batch.texts) or [batch.size]
    image = _pictures(spec.image, len(pictures), generator)
    input_ids, attention_mask = _texts(spec.text, len(texts), batch.tokens, generator)
    attributes = torch.zeros((batch.size, len(ATTRIBUTE_COLUMNS)), dtype=torch.int64)
    rows = list(batch.attributes)
    attributes[rows] = _attributes(spec.attributes, len(rows), generator)
    return (
        image,
        torch.tensor(pictures),
        input_ids,
        attention_mask,
        torch.tensor(texts),
        attributes,
    )


def history_inputs(
    shape: tuple[int, int, int], width: int, *, empty: bool, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """``history (B, H, width)``, ``history_mask (B, H)`` and ``candidates (B, C, width)``.

    Args:
        shape: ``B, H, C``.
        width: of the vectors.
        empty: whether the last row's history is masked as a whole.
        seed: equal seeds give equal inputs.
    """
    batch, length, count = shape
    generator = torch.Generator().manual_seed(seed)
    history = unit_vectors(batch * length, width, generator).view(batch, length, width)
    candidates = unit_vectors(batch * count, width, generator).view(batch, count, width)
    kept = torch.randint(1, length + 1, (batch,), generator=generator)
    kept[0] = length
    if empty:
        kept[-1] = 0
    mask = torch.arange(length) < kept.unsqueeze(1)
    return history, mask, candidates


def unit_vectors(count: int, width: int, generator: torch.Generator) -> Tensor:
    """``(count, width)`` float32 of unit length."""
    return F.normalize(torch.randn((count, width), generator=generator), dim=-1)


def _pictures(spec: ImageInput | None, count: int, generator: torch.Generator) -> Tensor:
    if spec is None:
        return torch.zeros((count, 3, 1, 1))
    drawn = [_picture(spec.size, generator).permute(1, 2, 0).numpy() for _ in range(count)]
    return torch.from_numpy(prepare_pictures(drawn, spec))


def _picture(size: int, generator: torch.Generator) -> Tensor:
    """A shaded disc with a fine texture before a soft background; ``(3, size, size)`` uint8."""
    draw = torch.rand(14, generator=generator)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    background = (0.75 + 0.25 * draw[0:3, None, None]) - 0.15 * (x * draw[3] + y * draw[4])
    radius = 0.3 + 0.5 * draw[5]
    distance = ((x - draw[6] + 0.5) ** 2 + (y - draw[7] + 0.5) ** 2).sqrt()
    shade = 0.8 + 0.2 * torch.sin(math.pi * (4 + 20 * draw[8]) * (x + y * draw[9]))
    thing = draw[10:13, None, None] * shade * (1.2 - distance)
    edge = torch.sigmoid((radius - distance) * size / 4)
    grain = 0.02 * torch.randn((3, size, size), generator=generator)
    pixels = background * (1 - edge) + thing * edge + grain
    return (pixels.clamp(0, 1) * 255).to(torch.uint8)


def _texts(
    spec: TextInput | None, count: int, tokens: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random tokens; the first text is the longest, the others end anywhere."""
    if spec is None:
        one = torch.ones((count, 1), dtype=torch.int64)
        return one, one
    vocabulary = int(str(spec.architecture["vocab_size"]))
    lengths = torch.randint(
        min(tokens, _SPECIAL_TOKENS), tokens + 1, (count, 1), generator=generator
    )
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths).to(torch.int64)
    ids = torch.randint(0, vocabulary, (count, tokens), generator=generator)
    return torch.where(mask > 0, ids, spec.pad_token_id), mask


def _attributes(spec: AttributeInput, count: int, generator: torch.Generator) -> Tensor:
    """Any bucket, and 0 (absent) now and then."""
    columns = len(ATTRIBUTE_COLUMNS)
    values = torch.randint(1, spec.buckets, (count, columns), generator=generator)
    absent = torch.rand((count, columns), generator=generator) < 0.25  # noqa: PLR2004
    absent[:, 0] = False
    return values.masked_fill(absent, 0)
