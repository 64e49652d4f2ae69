"""What fine-tuning hides from the encoder, so that it neither copies nor relies on it."""

import torch
from torch import Tensor

from newshelf.nn.encoder import Features
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, HeadName

__all__ = ["STATED_BY", "columns", "drop_modalities", "hide_columns"]

_HIDE_STATED = 0.5
_HIDE_OTHERS = 0.2

STATED_BY: dict[HeadName, tuple[str, ...]] = {
    "source_type": ("top_type", "product_type"),
    "color": ("color", "second_color"),
    "material": ("material", "second_material"),
}
"""The columns that state each head's answer."""


def hide_columns(
    attributes: Tensor, heads: list[HeadName]
) -> tuple[Tensor, dict[HeadName, Tensor]]:
    """Hide each head's columns from half of the rows; say from which, ``(B,)`` bool.

    Only those rows may count for that head's loss: the others show the answer.
    """
    shown = attributes.clone()
    hidden = {}
    for head in heads:
        rows = torch.rand(len(attributes)) < _HIDE_STATED
        hidden[head] = rows
        shown[:, columns(STATED_BY[head])] *= ~rows.unsqueeze(1)
    # What no head states (brand, size, price) is hidden now and then, not to be relied on.
    others = torch.rand(len(attributes), 1) < _HIDE_OTHERS
    stated = {column for head in heads for column in STATED_BY[head]}
    rest = tuple(column for column in ATTRIBUTE_COLUMNS if column not in stated)
    shown[:, columns(rest)] *= ~others
    return shown, hidden


def columns(names: tuple[str, ...]) -> list[int]:
    """Where the named ones are in an attribute row."""
    return [ATTRIBUTE_COLUMNS.index(name) for name in names]


def drop_modalities(features: Features, rate: float) -> Features:
    """Hide the picture of a share ``rate`` of the rows, and the text of another; never both.

    ModDrop (Neverova et al., 2015), by row.
    """
    image, image_present, text, text_present = features
    draw = torch.rand(len(image_present))
    drop_image = (draw < rate) & text_present
    drop_text = (draw > 1 - rate) & image_present
    return image, image_present & ~drop_image, text, text_present & ~drop_text
