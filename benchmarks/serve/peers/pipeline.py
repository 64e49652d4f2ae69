"""Pipeline of every peer: Newshelf's own preprocessing and runtimes.

The peers' environment has no torch: of Newshelf it imports only the preprocessing of pictures and
the runtimes.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from newshelf.config import Precision, RuntimeKind
from newshelf.nn.inputs import prepare_picture
from newshelf.nn.spec import ATTRIBUTE_COLUMNS, read_spec
from newshelf.serving.runtimes.base import Device, encoder_graph, open_runtime

VARIABLE = "NEWSHELF_PEER_PLAN"


@dataclass(frozen=True)
class PeerPlan:
    """Model and layout of one peer."""

    directory: str
    """An export."""
    runtime: RuntimeKind
    precision: Precision
    port: int
    workers: int
    threads: int
    """Threads of the runtime in each worker."""
    batch_size: int
    batch_wait_ms: float
    device: Literal["cpu", "cuda"] = "cpu"


def plan() -> PeerPlan:
    """Return the plan from the environment of this process."""
    return PeerPlan(**json.loads(os.environ[VARIABLE]))


class Pipeline:
    """Bytes of pictures → embeddings by an encoder with an image tower only; decoded on the CPU."""

    def __init__(self, given: PeerPlan) -> None:
        directory = Path(given.directory)
        spec = read_spec(directory).encoder
        if spec.image is None or spec.text is not None:
            raise ValueError("the peers need an encoder of pictures, without texts")
        self._image = spec.image
        self._runtime = open_runtime(
            given.runtime,
            directory,
            encoder_graph(spec),
            Device(given.device),
            given.threads,
            given.precision,
        )

    def pixels(self, picture: bytes) -> NDArray[np.float32]:
        """Return ``(3, size, size)``, normalised."""
        size = self._image.size
        out: NDArray[np.float32] = np.empty((3, size, size), dtype=np.float32)
        prepare_picture(picture, self._image, out)
        return out

    def embed(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return ``(len(pixels), 512)``."""
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
