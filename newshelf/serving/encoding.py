"""What the encoder says of a product, read from its graph's outputs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import NewshelfError
from newshelf.nn.spec import HEADS, EncoderSpec, HeadName

__all__ = ["Encoding", "read_outputs"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder says of one product."""

    embedding: NDArray[np.float32]
    """``(512,)``, of unit length."""
    labels: dict[HeadName, tuple[str, float]]
    """The likeliest class of each head, and its probability."""
    text_unread: bool = False
    """Whether it has a text of which the text tower knows no word."""


def read_outputs(
    outputs: Mapping[str, NDArray[np.float32]], spec: EncoderSpec
) -> list[Encoding | NewshelfError]:
    """One encoding per row; an error for a row whose embedding is not finite.

    Args:
        outputs: ``embedding (B, 512)``, and ``<head>_logits (B, classes)`` of each head.
        spec: the heads' classes.
    """
    embeddings = outputs["embedding"]
    finite = np.asarray(np.isfinite(embeddings).all(axis=1))
    labels = [dict[HeadName, tuple[str, float]]() for _ in embeddings]
    for head in HEADS:
        if classes := spec.labels.get(head):
            likeliest = zip(*_likeliest(outputs[f"{head}_logits"]), strict=True)
            for row, (score, index) in zip(labels, likeliest, strict=True):
                row[head] = (classes[index], round(score, 6))
    return [
        Encoding(embedding, row)
        if good
        else NewshelfError("the model gave no finite embedding for this product")
        for embedding, row, good in zip(embeddings, labels, finite, strict=True)
    ]


def _likeliest(logits: NDArray[np.float32]) -> tuple[list[float], list[int]]:
    """Of each row the largest softmax, and where it is."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = powers.max(axis=1) / powers.sum(axis=1)
    return scores.tolist(), logits.argmax(axis=1).tolist()
