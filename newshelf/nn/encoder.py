"""The encoder: a product's picture, text and attributes to one embedding and labels.

Three towers compute one feature vector per modality. A fusion makes one embedding of them, in
which absent modalities are masked; ``[fusion] kind`` selects it::

    early       one network over the concatenated modalities
    late        an embedding per modality, weighted by a gate over the present ones
    attention   a learned query attends to the present modalities

Shape of a fusion: ``features`` one ``(B, width_m)`` per modality, ``present`` ``(B, modalities)``
bool → ``(B, embedding)`` float32 of unit length.
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from newshelf.nn.multilingual_e5 import PackedEmbedding
from newshelf.nn.spec import (
    ATTRIBUTE_COLUMNS,
    HEADS,
    AttributeInput,
    EncoderSpec,
    FusionSpec,
    HeadName,
    ImageInput,
    TextInput,
)
from newshelf.nn.tower_stages import PyramidPool, TowerStages


class ImageTower(nn.Module):
    """A timm backbone: ``(N, 3, size, size)`` float32 → ``(N, features)``.

    The pooled features are followed by those of inner stages, in blocks of unit length.
    """

    def __init__(self, spec: ImageInput) -> None:
        super().__init__()
        self.backbone = timm.create_model(spec.architecture, pretrained=False, num_classes=0)
        self.stages = spec.stages
        self.pool = PyramidPool(spec.grids)

    def forward(self, image: Tensor) -> Tensor:
        """Return the features."""
        if not self.stages:
            features: Tensor = self.backbone(image)
            return features
        inner, pooled = TowerStages(self.backbone).read(image, self.stages, self.pool)
        return torch.cat([pooled, *inner], dim=1)

    def read_stages(
        self, spec: ImageInput, stages: tuple[int, ...], grids: tuple[int, ...]
    ) -> ImageInput:
        """Append features of inner stages to the output; return the changed ``spec``."""
        self.stages, self.pool = stages, PyramidPool(grids)
        with torch.inference_mode():
            width = self(torch.zeros(1, 3, spec.size, spec.size)).shape[1]
        inner = width - spec.features + spec.inner
        changes = {"features": width, "inner": inner, "stages": stages, "grids": grids}
        return spec.model_copy(update=changes)


class TextTower(nn.Module):
    """A transformer encoder with mean pooling, as in Sentence-BERT (Reimers and Gurevych, 2019).

    Shape: ``input_ids`` and ``attention_mask`` ``(N, T)`` int64 → ``(N, features)``.
    """

    def __init__(self, spec: TextInput) -> None:
        super().__init__()
        config = AutoConfig.for_model(**dict[str, Any](spec.architecture))
        # No loss is computed, but a tracer reads every attribute, and transformers warns if this
        # one is missing.
        config.loss_type = "ForMaskedLM"
        rows = config.vocab_size
        if spec.packed_words:
            config.vocab_size = 1  # A float32 embedding that is replaced.
        # The exporter to ONNX keeps the sizes of eager attention dynamic.
        from_config: Any = AutoModel.from_config
        self.backbone = from_config(config, attn_implementation="eager")
        if spec.packed_words:
            self.backbone.embeddings.word_embeddings = PackedEmbedding(rows, spec.features)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the masked mean of the last hidden states."""
        hidden = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True
        ).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        return pooled


class AttributeTower(nn.Module):
    """One embedding per column: ``(B, columns)`` int64, 0 for absent → ``(B, columns * width)``."""

    offsets: Tensor

    def __init__(self, spec: AttributeInput) -> None:
        super().__init__()
        columns = len(ATTRIBUTE_COLUMNS)
        self.features = columns * spec.width
        self.table = nn.Embedding(columns * spec.buckets, spec.width)
        # Small, so that a value first seen in serving has almost no effect.
        nn.init.normal_(self.table.weight, std=0.02)
        self.register_buffer("offsets", torch.arange(columns) * spec.buckets, persistent=False)

    def forward(self, attributes: Tensor) -> Tensor:
        """Return the embeddings of the present values."""
        present = (attributes > 0).unsqueeze(-1)
        rows: Tensor = self.table(attributes + self.offsets) * present
        return rows.flatten(1)


def _projections(widths: list[int], width: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width)) for size in widths
    )


def _feed_forward(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(inputs),
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


class EarlyFusion(nn.Module):
    """One perceptron over the concatenated projected features.

    With ``t_m`` the projection of modality ``m``, zeros if it is absent, and ``p`` the presence
    bits::

        c = [t_1 … t_M, p]
        embedding = normalise(A c + B gelu(C norm(c)))

    The bits distinguish absent features from zeros (Baltrušaitis et al., Multimodal machine
    learning, 2019).
    """

    def __init__(self, spec: FusionSpec, widths: list[int], embedding: int) -> None:
        super().__init__()
        width = spec.width
        joined = len(widths) * width + len(widths)
        self.inputs = _projections(widths, width)
        self.direct = nn.Linear(joined, embedding)
        self.feed_forward = _feed_forward(joined, 2 * width, embedding, spec.dropout)

    def forward(self, features: list[Tensor], present: Tensor) -> Tensor:
        """Return the fused embedding."""
        has = present.to(features[0].dtype)
        tokens = torch.stack(
            [module(rows) for module, rows in zip(self.inputs, features, strict=True)], dim=1
        )
        joined = torch.cat([(tokens * has.unsqueeze(-1)).flatten(1), has], dim=1)
        return F.normalize(self.direct(joined) + self.feed_forward(joined), dim=-1)


class LateFusion(nn.Module):
    """An embedding per modality, weighted by a gate over the present ones.

    With ``t_m`` the projection of modality ``m`` (Gated Multimodal Unit, Arevalo et al.,
    2017, with a softmax over the present modalities)::

        e_m = O (t_m + F_m(t_m))
        g   = softmax over the present m of  w_m · norm(t_m) + b_m
        embedding = normalise(Σ_m g_m e_m)

    If all modalities are absent, a learned vector takes their place.
    """

    def __init__(self, spec: FusionSpec, widths: list[int], embedding: int) -> None:
        super().__init__()
        width = spec.width
        self.inputs = _projections(widths, width)
        self.feed_forward = nn.ModuleList(
            _feed_forward(width, width, width, spec.dropout) for _ in widths
        )
        self.gates = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1)) for _ in widths
        )
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.output = nn.Linear(width, embedding)

    def forward(self, features: list[Tensor], present: Tensor) -> Tensor:
        """Return the fused embedding."""
        own, gates = [], []
        for at, rows in enumerate(features):
            token = self.inputs[at](rows)
            own.append(token + self.feed_forward[at](token))
            gates.append(self.gates[at](token))
        # Finite, because minus infinity would divide 0 by 0 if all modalities are absent.
        logits = torch.cat(gates, dim=1).masked_fill(~present, -1e4)
        weights = logits.softmax(dim=1) * present
        mixed = (weights.unsqueeze(-1) * torch.stack(own, dim=1)).sum(dim=1)
        none = ~present.any(dim=1, keepdim=True)
        return F.normalize(self.output(mixed + none * self.nothing), dim=-1)


class AttentionFusion(nn.Module):
    """A learned query attends to one token per modality; absent ones are masked.

    An additional learned token is never masked, so a row without any modality has a finite
    embedding. Multi-head scaled dot-product attention (Vaswani et al., 2017) is added to the mean
    of the present tokens, followed by a feed-forward block and L2 normalisation.
    """

    def __init__(self, spec: FusionSpec, widths: list[int], embedding: int) -> None:
        super().__init__()
        width = spec.width
        self.heads = spec.heads
        self.inputs = _projections(widths, width)
        self.modality = nn.Parameter(torch.randn(len(widths), width) * 0.02)
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.feed_forward = _feed_forward(width, 2 * width, width, spec.dropout)
        self.output = nn.Linear(width, embedding)

    def forward(self, features: list[Tensor], present: Tensor) -> Tensor:
        """Return the fused embedding."""
        batch = present.shape[0]
        tokens = torch.stack(
            [module(rows) for module, rows in zip(self.inputs, features, strict=True)], dim=1
        )
        tokens = (tokens + self.modality) * present.unsqueeze(-1)
        count = present.sum(dim=1, keepdim=True).clamp(min=1).to(tokens.dtype)
        mean = tokens.sum(dim=1) / count
        nothing = self.nothing.expand(batch, 1, -1)
        mixed = mean + self._attend(torch.cat([nothing, tokens], dim=1), present)
        mixed = mixed + self.feed_forward(mixed)
        return F.normalize(self.output(mixed), dim=-1)

    def _attend(self, tokens: Tensor, present: Tensor) -> Tensor:
        """``(B, 1 + modalities, width)`` → ``(B, width)``."""
        batch, length, width = tokens.shape
        key, value = self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        size = width // self.heads
        key = key.view(batch, length, self.heads, size)
        value = value.view(batch, length, self.heads, size)
        query = self.query.view(self.heads, size)
        logits = (key * query).sum(dim=-1) * size**-0.5
        always = torch.ones_like(present[:, :1])
        mask = torch.cat([always, present], dim=1).unsqueeze(-1)
        weights = logits.masked_fill(~mask, -1e4).softmax(dim=1)
        pooled = (weights.unsqueeze(-1) * value).sum(dim=1)
        mixed: Tensor = self.mix(pooled.reshape(batch, width))
        return mixed


Fusion = AttentionFusion | EarlyFusion | LateFusion

FUSIONS: dict[str, type[AttentionFusion] | type[EarlyFusion] | type[LateFusion]] = {
    "attention": AttentionFusion,
    "early": EarlyFusion,
    "late": LateFusion,
}


Features = tuple[Tensor, Tensor, Tensor, Tensor]
"""``image (B, F_i)``, ``image_present (B,)`` bool, ``text (B, F_t)``, ``text_present``."""


class Encoder(nn.Module):
    """Product → ``(512,)`` float32 of unit length, and logits for each head.

    Pictures and texts are compact: only those that exist, each with its row of the batch, so the
    towers do no work for absent ones. ``image_row`` and ``text_row`` may be ``B`` (one past the
    last row) for padding, so that neither input is ever empty.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.image_tower = ImageTower(spec.image) if spec.image else None
        self.text_tower = TextTower(spec.text) if spec.text else None
        self.attribute_tower = AttributeTower(spec.attributes)
        widths = [self.attribute_tower.features]
        inner = spec.image.inner if spec.image else 0
        widths += [spec.image.features - inner] if spec.image else []
        widths += [spec.text.features] if spec.text else []
        self.fusion = FUSIONS[spec.fusion.kind](spec.fusion, widths, spec.embedding)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(spec.embedding, len(spec.labels[head])) for head in self.head_names}
        )
        self.inner_heads = nn.ModuleDict(
            {head: nn.Linear(inner, len(spec.labels[head])) for head in spec.inner_heads}
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
        parts = []
        inner: tuple[Tensor, ...] = ()
        if self.image_tower is not None and self.spec.image is not None:
            rows, has = _to_batch(self.image_tower(image), image_row, batch)
            pooled = rows.shape[1] - self.spec.image.inner
            parts.append((rows[:, :pooled], has))
            inner = rows[:, pooled:], has
        if self.text_tower is not None:
            parts.append(_to_batch(self.text_tower(input_ids, attention_mask), text_row, batch))
        embedding = self._fuse(parts, attributes)
        return (embedding, *(self.logits(head, embedding, *inner) for head in self.head_names))

    def logits(
        self,
        head: HeadName,
        embedding: Tensor,
        inner: Tensor | None = None,
        image_present: Tensor | None = None,
    ) -> Tensor:
        """Return the logits ``(B, classes)`` of a head.

        Rows with ``image_present (B,)`` have features ``inner (B, inner)`` of the inner stages.
        """
        logits: Tensor = self.heads[head](embedding)
        if head not in self.inner_heads or inner is None or image_present is None:
            return logits
        share = self.spec.inner_heads[head] * image_present.to(logits.dtype).unsqueeze(1)
        second: Tensor = self.inner_heads[head](inner)
        return logits + share * (second - logits)

    def fuse(self, features: Features, attributes: Tensor) -> Tensor:
        """Return embeddings ``(B, 512)`` of cached features; ``attributes`` are ``(B, 9)``."""
        towers = (self.image_tower, self.text_tower)
        parts = zip(towers, features[::2], features[1::2], strict=True)
        return self._fuse([part for tower, *part in parts if tower is not None], attributes)

    def _fuse(self, parts: Sequence[Sequence[Tensor]], attributes: Tensor) -> Tensor:
        """``parts`` are the features of each tower, and which rows have them."""
        features = [self.attribute_tower(attributes), *(rows for rows, _ in parts)]
        present = [(attributes > 0).any(dim=1), *(has for _, has in parts)]
        embedding: Tensor = self.fusion(features, torch.stack(present, dim=1))
        return embedding


def _to_batch(rows: Tensor, row: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Scatter ``(N, F)`` to ``(batch, F)`` and a ``(batch,)`` bool of what is present."""
    width = rows.shape[1]
    index = row.unsqueeze(1).expand(-1, width)
    # One additional row takes the padding, and is cut off.
    spread = rows.new_zeros((batch + 1, width)).scatter(0, index, rows)
    present = rows.new_zeros((batch + 1,)).scatter(0, row, torch.ones_like(rows[:, 0]))
    return spread[:batch], present[:batch] > 0
