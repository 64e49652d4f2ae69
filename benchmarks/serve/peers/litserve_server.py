"""LitServe: worker processes, each of which takes the waiting requests as one batch."""

from collections.abc import Sequence
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import orjson
from fastapi import Body, Response
from numpy.typing import NDArray

from benchmarks.serve.peers.pipeline import Pipeline, plan


class Embed(litserve.LitAPI):  # type: ignore[misc]
    """The four verbs of LitServe."""

    def setup(self, _device: str) -> None:
        """Load the graph, once per worker."""
        self.pipeline = Pipeline(plan())

    # Plain bytes are the cheapest of the bodies that LitServe accepts.
    def decode_request(self, request: Annotated[bytes, Body()]) -> NDArray[np.float32]:
        """A picture as the body → pixels."""
        return self.pipeline.pixels(request)

    def batch(self, inputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """The pipeline stacks them."""
        return inputs

    def predict(self, x: Any, **_: Any) -> NDArray[np.float32]:
        """One forward of all."""
        return self.pipeline.embed(x if isinstance(x, list) else [x])

    def unbatch(self, output: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """One embedding each."""
        return list(output)

    def encode_response(self, output: NDArray[np.float32]) -> Response:
        """JSON."""
        row = output.reshape(-1)
        body = orjson.dumps({"embedding": row}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")


if __name__ == "__main__":
    given = plan()
    api = Embed(
        max_batch_size=given.batch_size, batch_timeout=given.batch_wait_ms / 1e3, api_path="/embed"
    )
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=given.workers)
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="warning")
