"""Feature tables with known structure, without pictures or texts behind them."""

import math

import torch
from torch import Tensor

from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, EncoderSpec, HeadName
from newshelf.training.features import FeatureTable
from tests.unit.export.tiny_checkpoint import tiny_spec

IMAGE, TEXT = 48, 32


def encoder_of(
    labels: dict[HeadName, tuple[str, ...]],
    *,
    image: bool = True,
    text: bool = True,
    width: int = 128,
    kind: str = "attention",
) -> Encoder:
    """An encoder whose image tower claims ``IMAGE`` features; only ``fuse`` can be used."""
    spec = tiny_spec(image=image, text=text).encoder
    changes: dict[str, object] = {
        "labels": labels,
        "fusion": spec.fusion.model_copy(update={"width": width, "kind": kind}),
    }
    if spec.image:
        changes["image"] = spec.image.model_copy(update={"features": IMAGE})
    changed: EncoderSpec = spec.model_copy(update=changes)
    torch.manual_seed(4)
    return Encoder(changed).eval()


def clusters(label: Tensor, width: int, spread: float, seed: int) -> Tensor:
    """A centre for each label, and rows about it."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(int(label.max()) + 1, width, generator=generator)
    return centres[label] + spread * torch.randn(len(label), width, generator=generator)


def table_of(
    image: Tensor, text: Tensor, *, columns: dict[str, Tensor] | None = None, seed: int = 8
) -> FeatureTable:
    """Everything present but a tenth of each modality; attributes as given, else absent.

    With ``seed`` 0 the pictures that are absent would be those of the rows held out.
    """
    rows = len(image)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(rows, generator=generator)
    attributes = torch.zeros(rows, len(ATTRIBUTE_COLUMNS), dtype=torch.int64)
    for name, values in (columns or {}).items():
        attributes[:, ATTRIBUTE_COLUMNS.index(name)] = values
    has_image, has_text = draw > 0.1, draw < 0.9
    return FeatureTable(
        image * has_image.unsqueeze(1),
        has_image,
        text * has_text.unsqueeze(1),
        has_text,
        attributes,
    )


def blobs(count: int, angle: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clusters on a circle, turned by ``angle``, in a space of 8."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 3
    turn = label * 2 * math.pi / 3 + angle
    rows = torch.randn(count, 8, generator=generator) * 0.3
    rows[:, :2] += torch.stack([turn.cos(), turn.sin()], dim=1)
    return rows, label


WIDTH = 12


def noisy_types(types: int, per_type: int) -> tuple[Tensor, Tensor]:
    """The differences between types are small compared with the variance within each type."""
    generator = torch.Generator().manual_seed(11)
    labels = torch.arange(types).repeat_interleave(per_type)
    signal = torch.randn(types, 6, generator=generator)[labels]
    signal = signal + 0.4 * torch.randn(len(labels), 6, generator=generator)
    noise = 5 * torch.randn(len(labels), 6, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))
    return torch.cat([signal, noise], dim=1) @ turn, labels
