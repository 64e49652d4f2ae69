"""BentoML: worker processes with adaptive batching.

Started as ``bentoml serve benchmarks.serve.peers.bentoml_server:Embed``. Its batches are lists
of one type that a form can hold; a picture is a part of the form.
"""

from pathlib import Path

import bentoml  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.peers.pipeline import Pipeline, plan

_PLAN = plan()


@bentoml.service(workers=_PLAN.workers, traffic={"timeout": 60})
class Embed:
    """Pictures as files of a form → their embeddings."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(plan())

    @bentoml.api(  # type: ignore[untyped-decorator]
        route="/embed",
        batchable=True,
        batch_dim=0,
        max_batch_size=max(2, _PLAN.batch_size),
        max_latency_ms=60_000,
    )
    def embed(self, images: list[Path]) -> NDArray[np.float32]:
        """Run one forward of the waiting requests."""
        return self.pipeline.embed([self.pipeline.pixels(path.read_bytes()) for path in images])
