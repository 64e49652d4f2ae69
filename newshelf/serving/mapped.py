"""Arrays of a safetensors file, mapped into memory instead of read.

The library's own reader for NumPy copies what it reads; processes that map a file share its
pages. The header says where each array lies: https://github.com/huggingface/safetensors.
"""

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

__all__ = ["map_tensors"]

_LENGTH_BYTES = 8
_TYPES = {"F32": np.float32, "I32": np.int32, "I64": np.int64}


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a file, read-only.

    Raises:
        OSError: it is missing.
        SafetensorError: it is damaged.
        ValueError: it holds a type that is not float32, int32 or int64.
    """
    # The library sees that the header is sound and that the file ends where it says.
    with safe_open(path, framework="numpy"):
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    return {name: _array(data, _LENGTH_BYTES + length, entry) for name, entry in header.items()}


def _array(data: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"arrays of type {entry['dtype']} are not mapped")
    count = int(np.prod(entry["shape"]))
    offset = start + entry["data_offsets"][0]
    flat = np.frombuffer(data, _TYPES[entry["dtype"]], count, offset)
    return flat.reshape(entry["shape"])
