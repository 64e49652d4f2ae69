"""What the encoder's heads say of a catalogue, made ready for the knowledge table."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from newshelf.knowledge.heads import UNLABELLED, HeadReading
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import HeadName

__all__ = ["encoder_readings"]

_ATTRIBUTES: dict[HeadName, str] = {
    "source_type": "product_type",
    "target_type": "product_type",
    "color": "color",
    "material": "material",
}


def encoder_readings(
    encoder: Encoder,
    embeddings: Tensor,
    held_out: Mapping[HeadName, Tensor],
    speaks_of: Mapping[HeadName, Tensor],
) -> list[HeadReading]:
    """Logits of every head for every product.

    Args:
        encoder: trained.
        embeddings: ``(N, 512)``, the encoder's own, in the catalogue's order.
        held_out: by head, ``(N,)`` int64: the class of products that the head did not learn
            from, -1 elsewhere; a head that is absent is not calibrated.
        speaks_of: by head, ``(N,)`` bool: the products that it may name; a head that is
            absent names all. For the two heads of types, give each its own category and
            the products without a type.
    """
    count = len(embeddings)
    nobody = torch.full((count,), UNLABELLED, dtype=torch.int64)
    everybody = torch.ones(count, dtype=torch.bool)
    readings: list[HeadReading] = []
    for head in encoder.head_names:
        with torch.inference_mode():
            logits = encoder.heads[head](embeddings).float().cpu().numpy()
        readings.append(
            HeadReading(
                attribute=_ATTRIBUTES[head],
                classes=encoder.spec.labels[head],
                logits=logits.astype(np.float32),
                held_out=held_out.get(head, nobody).cpu().numpy(),
                speaks_of=speaks_of.get(head, everybody).cpu().numpy(),
            )
        )
    return readings
