"""TorchServe with a handler that does nothing, and the settings that move its limit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import markdown_table
from benchmarks.results import Row, TaskResult
from benchmarks.serve.command import ServeContext
from benchmarks.serve.contender import JPEG, Endpoint
from benchmarks.serve.encoder import CLIENTS
from benchmarks.serve.models import SMALL, make_pictures
from benchmarks.serve.noop_handler import VALUES
from benchmarks.serve.rounds import Measured, PictureLoad, run_servers
from benchmarks.serve.stock import write_mar
from benchmarks.serve.torchserve import serve_model
from newshelf.pipeline.workspace import ROOT
from newshelf.server.torchserve import read_properties

_HANDLER = Path(__file__).with_name("noop_handler.py")


@dataclass(frozen=True)
class Noop:
    """The handler in ``noop_handler.py`` with Newshelf's settings of TorchServe."""

    name: str
    work: Path
    config: Mapping[str, int]
    """Keys of ``model-config.yaml``."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Changed keys of ``config.properties``."""

    @property
    def layout(self) -> str:
        """See ``Contender.layout``."""
        return ", ".join(
            f"{key} {value}" for key, value in {**self.config, **self.properties}.items()
        )

    @contextmanager
    def run(self) -> Iterator[Endpoint]:
        """See ``Contender.run``."""
        folder = self.work / "servers" / "noop"
        mar = write_mar(
            folder / "store", "noop", handler=str(_HANDLER), model=None, config=self.config
        )
        with serve_model("noop", mar, folder, JPEG, self.properties) as endpoint:
            yield replace(endpoint, expected=_expected)


def _expected(pictures: Sequence[Path]) -> NDArray[np.float32]:
    return np.tile(np.asarray(VALUES, dtype=np.float32), (len(pictures), 1))


_BASE = "as Newshelf is served"
_CONFIG = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 3}


def _vmargs(flags: str) -> dict[str, str]:
    base = read_properties(ROOT / "config.properties")["vmargs"]
    return {"vmargs": f"{base} {flags}"}


LEVERS: Mapping[str, tuple[Mapping[str, int], Mapping[str, str]]] = {
    "wait ≤ 1 ms": ({"maxBatchDelay": 1}, {}),
    "batch 1": ({"batchSize": 1}, {}),
    "batch ≤ 32": ({"batchSize": 32}, {}),
    "2 workers": ({"minWorkers": 2, "maxWorkers": 2}, {}),
    "3 workers": ({"minWorkers": 3, "maxWorkers": 3}, {}),
    "G1 garbage collector": ({}, _vmargs("-XX:-UseSerialGC -XX:+UseG1GC")),
    "parallel garbage collector": ({}, _vmargs("-XX:-UseSerialGC -XX:+UseParallelGC")),
    "second compiler, too": ({}, _vmargs("-XX:TieredStopAtLevel=4")),
    "compiled as late as by default": ({}, _vmargs("-XX:CompileThresholdScaling=1.0")),
    "one core for Java": ({}, _vmargs("-XX:ActiveProcessorCount=1")),
    "1 netty thread each": ({}, {"number_of_netty_threads": "1", "netty_client_threads": "1"}),
    "4 netty threads each": ({}, {"number_of_netty_threads": "4", "netty_client_threads": "4"}),
    "no native sockets": ({}, {"use_native_io": "false"}),
    "direct buffers": ({}, {"prefer_direct_buffer": "true"}),
    "no tokens": ({}, {"disable_token_authorization": "true"}),
}
"""Lever → changes to ``model-config.yaml`` and ``config.properties``."""


def run(context: ServeContext) -> TaskResult:
    """Load a handler that computes nothing, with one lever at a time."""
    pictures = make_pictures(context.work, SMALL, context.catalog)
    servers = [Noop(_BASE, context.work, _CONFIG)]
    servers += [
        Noop(name, context.work, {**_CONFIG, **config}, properties)
        for name, (config, properties) in LEVERS.items()
    ]
    # No reference: each answer is a constant.
    plan = PictureLoad(pictures, None, (1, CLIENTS), context.seconds, context.warm_up_s)
    found = run_servers(servers, plan, context.rounds, context.console)
    return TaskResult(
        task="ceiling",
        title="TorchServe with a handler that does nothing",
        protocol=(
            "The same requests and answers of the same size, and no work between: what is left "
            "is HTTP, the queue, the socket to the worker and the worker's loop. Each lever is "
            f"set alone, next to {_CONFIG}."
        ),
        rows=[
            Row(measure, name, found[name].values(clients, value), name == _BASE, robust=True)
            for measure, clients, value in _MEASURES
            for name in found
        ],
        details=_table(found),
        percent=False,
        lower_is_better=[_MEASURES[1][0]],
    )


_MEASURES = (
    (f"{CLIENTS} clients, requests/s", CLIENTS, "per_second"),
    ("1 client, p50 ms", 1, "p50_ms"),
)


def _table(found: Mapping[str, Measured]) -> str:
    base = found[_BASE]
    header = (
        *("lever", "32 clients, per second", "×", "p99 ms", "frontend, CPU µs", "workers, CPU µs"),
        *("1 client, p50 ms", "×"),
    )
    rows = []
    for name, one in found.items():
        speed, slow = (median(one.values(CLIENTS, value)) for value in ("per_second", "p99_ms"))
        alone = median(one.values(1, "p50_ms"))
        frontend, all_of_it = one.cpu_us(CLIENTS, "java") or 0.0, one.cpu_us(CLIENTS) or 0.0
        rows.append(
            (
                name,
                f"{speed:.0f}",
                f"{speed / median(base.values(CLIENTS)):.2f}",
                f"{slow:.1f}",
                f"{frontend:.0f}",
                f"{all_of_it - frontend:.0f}",
                f"{alone:.2f}",
                f"{alone / median(base.values(1, 'p50_ms')):.2f}",
            )
        )
    return markdown_table(header, "lrrrrrrr", rows)
