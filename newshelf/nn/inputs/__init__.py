"""From a product to the encoder's input tensors; one code for training and serving."""

from newshelf.nn.inputs.attributes import attribute_row, price_edges
from newshelf.nn.inputs.picture import MAX_PIXELS, decode_picture, prepare_pictures
from newshelf.nn.inputs.text import Tokenizer

__all__ = [
    "MAX_PIXELS",
    "Tokenizer",
    "attribute_row",
    "decode_picture",
    "prepare_pictures",
    "price_edges",
]
