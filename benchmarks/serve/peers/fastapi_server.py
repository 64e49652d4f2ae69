"""FastAPI with ONNX Runtime, without batching, which neither of the two has.

A request is decoded and run in a thread, as FastAPI runs blocking code. Its documented limiter is
set from 40 threads to as many as the runtime has.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.serve.peers.pipeline import Pipeline, plan

_PLAN = plan()
_PIPELINE = Pipeline(_PLAN)


@asynccontextmanager
async def _limited(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _PLAN.threads
    yield


app = FastAPI(lifespan=_limited)


def _answer(picture: bytes) -> bytes:
    embedding = _PIPELINE.embed([_PIPELINE.pixels(picture)])[0]
    return orjson.dumps({"embedding": embedding}, option=orjson.OPT_SERIALIZE_NUMPY)


@app.post("/embed")
async def embed(request: Request) -> Response:
    """A picture as the body → its embedding."""
    body = await request.body()
    answer = await anyio.to_thread.run_sync(_answer, body)
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serve.peers.fastapi_server:app",
        host="127.0.0.1",
        port=_PLAN.port,
        workers=_PLAN.workers,
        access_log=False,
        log_level="warning",
    )
