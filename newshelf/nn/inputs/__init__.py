"""From a product to the encoder's inputs; one code for training and serving.

Nothing imported here imports torch: a worker on the CPU does without it.
"""

from newshelf.nn.inputs.attributes import attribute_row, price_edges
from newshelf.nn.inputs.picture import (
    decode_picture,
    normalise_picture,
    prepare_picture,
    prepare_pictures,
)
from newshelf.nn.inputs.text import Tokenizer, pad_tokens
from newshelf.nn.inputs.upright import MAX_PIXELS, upright_picture

__all__ = [
    "MAX_PIXELS",
    "Tokenizer",
    "attribute_row",
    "decode_picture",
    "normalise_picture",
    "pad_tokens",
    "prepare_picture",
    "prepare_pictures",
    "price_edges",
    "upright_picture",
]
