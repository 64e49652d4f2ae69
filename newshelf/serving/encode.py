"""Products to embeddings and labels: the one way in which serving calls the encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from newshelf.errors import InvalidField, NewshelfError, RequestError
from newshelf.nn.spec import HEADS, EncoderSpec, HeadName
from newshelf.serving.decode import PictureDecoder
from newshelf.serving.observe import Stages
from newshelf.serving.preprocess import InputBuilder
from newshelf.serving.products import ProductInput
from newshelf.serving.runtime import Runtime

__all__ = ["Encoding", "ProductEncoder"]

_GROUP_BYTES = 64 * 1024 * 1024
"""Decoded pictures are resized, and let go, whenever they reach this many bytes."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder says of one product."""

    embedding: NDArray[np.float32]
    """``(512,)``, of unit length."""
    labels: dict[HeadName, tuple[str, float]]
    """The likeliest class of each head, and its probability."""


class ProductEncoder:
    """Encodes products of any number of requests together.

    Args:
        spec: the encoder's description.
        runtime: its graph.
        builder: makes the graph's inputs, on the runtime's device.
        decoder: decodes the pictures.
        max_forward_batch: products in one forward; more are done in turns.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        runtime: Runtime,
        builder: InputBuilder,
        decoder: PictureDecoder,
        max_forward_batch: int,
    ) -> None:
        self._spec = spec
        self._runtime = runtime
        self._builder = builder
        self._decoder = decoder
        self._max_forward_batch = max_forward_batch

    def encode(
        self, inputs: Sequence[ProductInput], stages: Stages
    ) -> list[Encoding | NewshelfError]:
        """Encode every product; one that cannot be gets its error in its place."""
        step = self._max_forward_batch
        turns = (inputs[start : start + step] for start in range(0, len(inputs), step))
        return [result for turn in turns for result in self._encode_turn(turn, stages)]

    def _encode_turn(
        self, inputs: Sequence[ProductInput], stages: Stages
    ) -> list[Encoding | NewshelfError]:
        failed: dict[int, NewshelfError] = {}
        images, image_at = self._pictures(inputs, failed, stages)
        for at, item in enumerate(inputs):
            if at not in failed and (error := self._unreadable(item)):
                failed[at] = error
        kept = [at for at in range(len(inputs)) if at not in failed]
        encodings = self._forward([inputs[at] for at in kept], images, kept, image_at, stages)
        results: dict[int, Encoding | NewshelfError] = {
            **failed,
            **dict(zip(kept, encodings, strict=True)),
        }
        return [results[at] for at in range(len(inputs))]

    def _unreadable(self, item: ProductInput) -> InvalidField | None:
        has_picture = item.picture is not None and self._spec.image is not None
        has_text = bool(item.product.text()) and self._spec.text is not None
        if has_picture or has_text:
            return None
        wanted = "an image" if self._spec.text is None else "a title or a description"
        return InvalidField(f"this model needs {wanted}", field=item.at or None)

    def _pictures(
        self, inputs: Sequence[ProductInput], failed: dict[int, NewshelfError], stages: Stages
    ) -> tuple[Tensor, list[int]]:
        """Decode and resize; the pixels as ``(N, 3, S, S)`` and the input each belongs to."""
        pictured = [at for at, item in enumerate(inputs) if item.picture is not None]
        decoded = self._decoder.decode([inputs[at] for at in pictured])
        image_at: list[int] = []
        done: list[Tensor] = []
        group: list[Tensor] = []
        for at, picture in zip(pictured, _timed(decoded, stages), strict=True):
            if isinstance(picture, RequestError):
                failed[at] = picture
                continue
            image_at.append(at)
            group.append(picture)
            if sum(member.nbytes for member in group) > _GROUP_BYTES:
                done.append(self._resized(group, stages))
                group = []
        if group or not done:
            done.append(self._resized(group, stages))
        return torch.cat(done), image_at

    def _resized(self, group: Sequence[Tensor], stages: Stages) -> Tensor:
        with stages.measure("preprocess"):
            return self._builder.pictures(group)

    def _forward(
        self,
        inputs: Sequence[ProductInput],
        images: Tensor,
        kept: Sequence[int],
        image_at: Sequence[int],
        stages: Stages,
    ) -> list[Encoding | NewshelfError]:
        if not inputs:
            return []
        row_of = {at: row for row, at in enumerate(kept)}
        with stages.measure("preprocess"):
            # Without an image tower the pictures were checked, and are not used.
            rows = [row_of[at] for at in image_at] if self._spec.image is not None else []
            tensors = self._builder.inputs([item.product for item in inputs], images, rows)
        with stages.measure("inference"):
            outputs = {name: value.cpu() for name, value in self._runtime.run(tensors).items()}
        with stages.measure("postprocess"):
            return self._encodings(outputs)

    def _encodings(self, outputs: dict[str, Tensor]) -> list[Encoding | NewshelfError]:
        embeddings = outputs["embedding"].float().numpy()
        finite = np.isfinite(embeddings).all(axis=1)
        labels = [dict[HeadName, tuple[str, float]]() for _ in embeddings]
        for head in HEADS:
            if classes := self._spec.labels.get(head):
                best = outputs[f"{head}_logits"].float().softmax(dim=1).max(dim=1)
                likeliest = zip(best.values.tolist(), best.indices.tolist(), strict=True)
                for row, (score, index) in zip(labels, likeliest, strict=True):
                    row[head] = (classes[index], round(score, 6))
        return [
            Encoding(embeddings[row], labels[row])
            if finite[row]
            else NewshelfError("the model gave no finite embedding for this product")
            for row in range(len(embeddings))
        ]


def _timed(
    decoded: Iterator[Tensor | RequestError], stages: Stages
) -> Iterator[Tensor | RequestError]:
    while True:
        with stages.measure("decode"):
            picture = next(decoded, None)
        if picture is None:
            return
        yield picture
