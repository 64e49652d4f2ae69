"""The encoder: a product's picture, text and attributes to one embedding and labels."""

import torch
from torch import Tensor, nn

from newshelf.nn.fusion import build_fusion
from newshelf.nn.spec import HEADS, EncoderSpec, HeadName
from newshelf.nn.towers import AttributeTower, ImageTower, TextTower

__all__ = ["Encoder", "Features"]

Features = tuple[Tensor, Tensor, Tensor, Tensor]
"""``image (B, F_i)``, ``image_present (B,)`` bool, ``text (B, F_t)``, ``text_present``."""


class Encoder(nn.Module):
    """Product → ``(512,)`` float32 of unit length, and logits for each head.

    Pictures and texts come compactly: only rows that have one, with the batch row each
    belongs to. The towers thus do no work for what is absent. ``image_row`` and
    ``text_row`` may hold the value ``B`` (one past the last row) for padding, so that
    neither input is ever empty.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.image_tower = ImageTower(spec.image) if spec.image else None
        self.text_tower = TextTower(spec.text) if spec.text else None
        self.attribute_tower = AttributeTower(spec.attributes)
        widths = [self.attribute_tower.features]
        widths += [tower.features for tower in (spec.image, spec.text) if tower]
        self.fusion = build_fusion(spec.fusion, widths, spec.embedding)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(spec.embedding, len(spec.labels[head])) for head in self.head_names}
        )

    @property
    def head_names(self) -> tuple[HeadName, ...]:
        """The heads that have classes, in the order of their logits."""
        return tuple(head for head in HEADS if self.spec.labels.get(head))

    def forward(
        self,
        image: Tensor,
        image_row: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        text_row: Tensor,
        attributes: Tensor,
    ) -> tuple[Tensor, ...]:
        """Encode a batch of ``B`` products.

        Args:
            image: ``(N_image, 3, size, size)`` float32, normalised; ``N_image >= 1``.
            image_row: ``(N_image,)`` int64, each in ``0 … B``.
            input_ids: ``(N_text, T)`` int64; ``N_text >= 1``.
            attention_mask: ``(N_text, T)`` int64.
            text_row: ``(N_text,)`` int64, each in ``0 … B``.
            attributes: ``(B, 9)`` int64, in the order of ``ATTRIBUTE_COLUMNS``.

        Returns:
            ``embedding (B, 512)``, then ``(B, classes)`` logits for each of
            ``head_names``.
        """
        batch = attributes.shape[0]
        features: list[Tensor] = []
        present: list[Tensor] = []
        if self.image_tower is not None:
            rows, has = _to_batch(self.image_tower(image), image_row, batch)
            features.append(rows)
            present.append(has)
        if self.text_tower is not None:
            rows, has = _to_batch(self.text_tower(input_ids, attention_mask), text_row, batch)
            features.append(rows)
            present.append(has)
        embedding = self._fuse(features, present, attributes)
        return (embedding, *(self.heads[head](embedding) for head in self.head_names))

    def fuse(self, features: Features, attributes: Tensor) -> Tensor:
        """The embedding from the towers' features, as cached for training.

        Args:
            features: see ``Features``; those of an absent tower are ignored.
            attributes: ``(B, 9)`` int64.

        Returns:
            ``(B, 512)`` float32 of unit length.
        """
        image, image_present, text, text_present = features
        rows, present = [], []
        if self.image_tower is not None:
            rows.append(image)
            present.append(image_present)
        if self.text_tower is not None:
            rows.append(text)
            present.append(text_present)
        return self._fuse(rows, present, attributes)

    def _fuse(self, features: list[Tensor], present: list[Tensor], attributes: Tensor) -> Tensor:
        has_attributes = (attributes > 0).any(dim=1)
        mask = torch.stack([has_attributes, *present], dim=1)
        embedding: Tensor = self.fusion([self.attribute_tower(attributes), *features], mask)
        return embedding


def _to_batch(rows: Tensor, row: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Scatter ``(N, F)`` to ``(batch, F)`` and a ``(batch,)`` bool of what is present."""
    width = rows.shape[1]
    index = row.unsqueeze(1).expand(-1, width)
    # One row more than the batch takes the padding, and is cut off.
    spread = rows.new_zeros((batch + 1, width)).scatter(0, index, rows)
    present = rows.new_zeros((batch + 1,)).scatter(0, row, torch.ones_like(rows[:, 0]))
    return spread[:batch], present[:batch] > 0
