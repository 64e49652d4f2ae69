"""The three towers: pictures, texts, attributes, each to one feature vector per row."""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from newshelf.nn.spec import ATTRIBUTE_COLUMNS, AttributeInput, ImageInput, TextInput

__all__ = ["AttributeTower", "ImageTower", "TextTower"]


class ImageTower(nn.Module):
    """A timm backbone without its classifier, pooled.

    Shape: ``(N, 3, size, size)`` float32 → ``(N, features)``.
    """

    def __init__(self, spec: ImageInput) -> None:
        super().__init__()
        self.backbone = timm.create_model(spec.architecture, pretrained=False, num_classes=0)

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features."""
        features: Tensor = self.backbone(image)
        return features


class TextTower(nn.Module):
    """A transformer encoder, its last layer averaged over the real tokens.

    Mean pooling as in Sentence-BERT (Reimers and Gurevych, 2019).

    Shape: ``input_ids`` and ``attention_mask`` ``(N, T)`` int64 → ``(N, features)``.
    """

    def __init__(self, spec: TextInput) -> None:
        super().__init__()
        config = AutoConfig.for_model(**dict[str, Any](spec.architecture))
        # No loss is computed here, but a tracer that reads every attribute asks for one, and
        # transformers warns where there is none.
        config.loss_type = "ForMaskedLM"
        # Eager attention is plain tensor arithmetic: both exporters keep its sizes dynamic.
        from_config: Any = AutoModel.from_config
        self.backbone = from_config(config, attn_implementation="eager")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Masked mean of the last hidden states."""
        hidden = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True
        ).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        return pooled


class AttributeTower(nn.Module):
    """One embedding table per column, side by side.

    Shape: ``(B, len(ATTRIBUTE_COLUMNS))`` int64, 0 for absent →
    ``(B, len(ATTRIBUTE_COLUMNS) * width)``, zeros for absent.
    """

    offsets: Tensor

    def __init__(self, spec: AttributeInput) -> None:
        super().__init__()
        columns = len(ATTRIBUTE_COLUMNS)
        self.features = columns * spec.width
        self.table = nn.Embedding(columns * spec.buckets, spec.width)
        # Small, so that a value first seen in serving says almost nothing.
        nn.init.normal_(self.table.weight, std=0.02)
        self.register_buffer("offsets", torch.arange(columns) * spec.buckets, persistent=False)

    def forward(self, attributes: Tensor) -> Tensor:
        """Embeddings of the present values."""
        present = (attributes > 0).unsqueeze(-1)
        rows: Tensor = self.table(attributes + self.offsets) * present
        return rows.flatten(1)
