"""Many good and bad pictures in the same batches: who is hurt, and what the memory does."""

import time

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.gpu.command import GpuContext
from benchmarks.gpu.inprocess import used_bytes
from benchmarks.gpu.pictures import Sent, distinct, mixture
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.contender import cosines
from newshelf.serving.encoder_predictor import EncoderPredictor
from newshelf.serving.protocol import RawRequest
from newshelf.serving.runtimes.base import Device

_OK = 200
_BATCH = 64
_WRONG = 0.99
"""Cosine to the CPU's embedding below which an answer is wrong."""
_WARM_UP = 0.1
_ANSWERS = "answers"
_MEMORY = "memory after the warm-up"


def run(context: GpuContext) -> TaskResult:
    """Send the scale's number of pictures through one predictor."""
    model = context.model(text=False)
    sent = mixture(context.scale.large)
    wanted = _wanted(model.load(Device(), "torchscript", "fp32"), sent)
    runtime, precision = context.ways[0]
    predictor = model.load(context.device, runtime, precision, batch=_BATCH)
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(("wrong embeddings", "good ones refused", "bad ones answered"), 0)
    memory: list[int] = []
    start, done = time.perf_counter(), 0
    while done < context.scale.mixed:
        drawn = rng.integers(0, len(sent), min(_BATCH, context.scale.mixed - done))
        answers = predictor.predict(
            [_request(sent[at], done + number) for number, at in enumerate(drawn)]
        )
        embeddings, expected = [], []
        for at, answer in zip(drawn, answers, strict=True):
            if not sent[at].good:
                counts["bad ones answered"] += answer.status == _OK
            elif answer.status != _OK:
                counts["good ones refused"] += 1
            else:
                embeddings.append(orjson.loads(answer.body)["embedding"])
                expected.append(wanted[at])
        if embeddings:
            cosine = cosines(np.asarray(embeddings, np.float32), np.stack(expected))
            # Written so that a NaN is wrong.
            counts["wrong embeddings"] += int((~(cosine >= _WRONG)).sum())
        done += len(drawn)
        if done >= _WARM_UP * context.scale.mixed:
            memory.append(used_bytes(context))
    seconds = time.perf_counter() - start
    growth = memory[-1] / memory[0] - 1
    return TaskResult(
        task="mixed",
        title="Good and bad pictures together",
        protocol=(
            f"{done} pictures of {len(sent)} kinds, {sum(not one.good for one in sent)} of which "
            f"are damaged or no pictures, at random in batches of {_BATCH}, by {runtime} in "
            f"{precision}. An embedding is wrong below a cosine of {_WRONG} to the CPU's. Memory "
            "is the whole GPU's (without one, the process's), from a tenth of the pictures on."
        ),
        rows=[
            *(Row(name, _ANSWERS, [count]) for name, count in counts.items()),
            Row("growth, %", _MEMORY, [100 * growth]),
        ],
        goals=[*(Goal(name, 0) for name in counts), Goal("growth, %", 1)],
        notes=[f"{done / seconds:.0f} pictures/s, with the drawing and checking of answers"],
        percent=False,
        lower_is_better=[*counts, "growth, %"],
    )


def _wanted(predictor: EncoderPredictor, sent: list[Sent]) -> list[NDArray[np.float32]]:
    """Return the CPU's embedding of each; nothing for a bad one."""
    found = []
    for number, one in enumerate(sent):
        [answer] = predictor.predict([_request(one, number)])
        if (answer.status == _OK) != one.good:
            raise BenchmarkError(f"{one.kind}: the CPU answers {answer.status}")
        table = orjson.loads(answer.body)
        found.append(np.asarray(table.get("embedding", ()), dtype=np.float32))
    return found


def _request(one: Sent, number: int) -> RawRequest:
    # Equal ones of a batch would be encoded once.
    data = distinct(one.data, number) if one.data.startswith(b"\xff\xd8") else one.data
    return RawRequest({"body": data}, "image/jpeg")
