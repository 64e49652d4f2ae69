"""One process of ``benchmarks.serve.inprocess``: its argument is the plan, as JSON."""

import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from newshelf.serving.bundle import MODEL_CONFIG
from newshelf.serving.limits import ServingSettings
from newshelf.serving.load import load_encoder_predictor
from newshelf.serving.protocol import Predictor, RawRequest

_OK = 200
_WARM_UP_S = 2.0


def main(plan: dict[str, Any]) -> None:
    """Load, say ``ready``, wait for a line, then call until the time is over."""
    directory = Path(plan["directory"])
    config = yaml.safe_load((directory / MODEL_CONFIG).read_text(encoding="utf-8"))
    config["serving"] |= {"threads": plan["threads"], "decode_threads": plan["decode_threads"]}
    predictor = load_encoder_predictor(
        directory, settings=ServingSettings.from_model_config(config)
    )
    rows = [
        RawRequest({"body": Path(path).read_bytes()}, "image/jpeg") for path in plan["pictures"]
    ]
    batches = _batches(rows, plan["batch_size"])
    _calls(predictor, batches, min(_WARM_UP_S, plan["seconds"]))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    taken = _calls(predictor, batches, plan["seconds"])
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "pictures": len(taken) * plan["batch_size"],
                "seconds": seconds,
                "p50_ms": float(np.percentile(taken, 50)) * 1e3,
                "p99_ms": float(np.percentile(taken, 99)) * 1e3,
            }
        )
    )


def _batches(rows: list[RawRequest], size: int) -> Iterator[list[RawRequest]]:
    endless = cycle(rows)
    while True:
        yield list(islice(endless, size))


def _calls(
    predictor: Predictor, batches: Iterator[list[RawRequest]], seconds: float
) -> list[float]:
    """The seconds that each call took."""
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        answers = predictor.predict(next(batches))
        taken.append(time.perf_counter() - start)
        for answer in answers:
            if answer.status != _OK:
                sys.exit(f"an answer was {answer.status}: {answer.body[:300]!r}")
    return taken


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
