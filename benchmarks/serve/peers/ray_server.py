"""Ray Serve: replicas, each with ``serve.batch``."""

import signal

import orjson
import ray  # type: ignore[import-not-found, unused-ignore]
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.serve.peers.pipeline import Pipeline, plan

_PLAN = plan()
_LOGICAL_CPUS = 64
"""More than the replicas need, so that Ray starts all of them."""


@serve.deployment(
    num_replicas=_PLAN.workers,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 1},
)
class Embed:
    """A picture as the body → its embedding."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(plan())

    @serve.batch(  # type: ignore[untyped-decorator, unused-ignore]
        max_batch_size=_PLAN.batch_size, batch_wait_timeout_s=_PLAN.batch_wait_ms / 1e3
    )
    async def embed(self, pictures: list[bytes]) -> list[bytes]:
        """Run one forward of the waiting requests."""
        found = self.pipeline.embed([self.pipeline.pixels(picture) for picture in pictures])
        option = orjson.OPT_SERIALIZE_NUMPY
        return [orjson.dumps({"embedding": row}, option=option) for row in found]

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        answer = await self.embed(await request.body())
        return Response(answer, media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=_LOGICAL_CPUS, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": _PLAN.port})
    serve.run(
        Embed.bind(),  # type: ignore[attr-defined]
        route_prefix="/embed",
    )
    signal.pause()
