"""The text tower in int8: its linear layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from export.smoothing import linear_layers, smooth
from export.static_int8 import Bits, quantise_static

__all__ = ["quantise_texts"]

_OPERATORS = ("MatMul",)


def quantise_texts(
    tower: onnx.ModelProto,
    texts: Sequence[dict[str, NDArray[Any]]],
    bits: Bits,
    scratch: Path,
) -> onnx.ModelProto:
    """Quantise the inputs and weights of the linear layers, which are smoothed before.

    Products of two activations, softmax, normalisation and sums stay in float32: they are a
    small part of the arithmetic, and one range for all channels of a sum is too coarse.

    Args:
        tower: float32, reads ``input_ids`` and ``attention_mask``; not changed.
        texts: to calibrate with, each alone and so without padding, ``(1, tokens)``.
        bits: of the weights.
        scratch: a folder for files that are gone in the end.

    Raises:
        SetupError: it cannot be quantised.
    """
    smoothed = smooth(tower, texts)
    linear = {node.name for node in linear_layers(smoothed)}
    others = [
        node.name
        for node in smoothed.graph.node
        if node.op_type in _OPERATORS and node.name not in linear
    ]
    return quantise_static(
        smoothed,
        texts,
        scratch,
        operators=_OPERATORS,
        bits=bits,
        kept=others,
        plain_outputs=_OPERATORS,
    )
