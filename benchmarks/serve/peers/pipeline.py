"""What every peer does with a request: Newshelf's own preprocessing and runtimes.

The peers' environment has no torch, and needs none: of Newshelf it imports only how a picture
becomes pixels, and how a graph is opened and run.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.inputs import prepare_picture
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, read_spec
from newshelf.serving.runtimes.base import Device, Kind, Precision
from newshelf.serving.runtimes.graph import encoder_graph
from newshelf.serving.runtimes.open import open_runtime

__all__ = ["VARIABLE", "Pipeline", "Plan", "plan"]

VARIABLE = "NEWSHELF_PEER_PLAN"


@dataclass(frozen=True)
class Plan:
    """What one peer serves, and how."""

    directory: Path
    """An export."""
    runtime: Kind
    precision: Precision
    port: int
    workers: int
    threads: int
    """Of the runtime, in each worker."""
    batch_size: int
    batch_wait_ms: float


def plan() -> Plan:
    """The plan that the benchmark gave this process in its environment."""
    table: dict[str, Any] = json.loads(os.environ[VARIABLE])
    return Plan(directory=Path(table.pop("directory")), **table)


class Pipeline:
    """Pictures' bytes to embeddings, on the CPU, by an encoder that has an image tower alone."""

    def __init__(self, given: Plan) -> None:
        spec = read_spec(given.directory).encoder
        if spec.image is None or spec.text is not None:
            raise ValueError("the peers are given an encoder of pictures, without texts")
        self._image = spec.image
        self._runtime = open_runtime(
            given.runtime,
            given.directory,
            encoder_graph(spec),
            Device("cpu"),
            given.threads,
            given.precision,
        )

    def pixels(self, picture: bytes) -> NDArray[np.float32]:
        """``(3, size, size)``, normalised."""
        size = self._image.size
        out: NDArray[np.float32] = np.empty((3, size, size), dtype=np.float32)
        prepare_picture(picture, self._image, out)
        return out

    def embed(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """``(len(pixels), 512)``."""
        count = len(pixels)
        one = np.ones((1, 1), dtype=np.int64)
        found = self._runtime.run(
            {
                "image": np.stack(pixels),
                "image_row": np.arange(count),
                "input_ids": one,
                "attention_mask": one,
                "text_row": np.array([count]),
                "attributes": np.zeros((count, len(ATTRIBUTE_COLUMNS)), dtype=np.int64),
            }
        )
        return found["embedding"]
