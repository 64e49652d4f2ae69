"""The encoder in float16, for a GPU."""

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.static_int8 import quietly

__all__ = ["write_float16"]


def write_float16(source: Path, path: Path) -> None:
    """Convert weights and arithmetic to float16; inputs and outputs stay float32."""
    with quietly():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), path)
