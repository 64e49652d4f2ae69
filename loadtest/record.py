"""Record of a run: the file that reports, limits and comparisons read.

It has lossless histograms per second of the *intended* start and per kind of request, so any
total can be computed later.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from hdrh.histogram import HdrHistogram
from pydantic import AfterValidator, Field

from newshelf.files import StrictModel, read_model, write_aside

_LOWEST_US = 1
_HIGHEST_US = 10 * 60 * 1_000_000
_DIGITS = 3


def empty_histogram() -> HdrHistogram:
    """Return a histogram of microseconds, 1 µs to 10 minutes, with three significant digits."""
    return HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)


def encoded(histogram: HdrHistogram) -> str:
    """Return HdrHistogram's compressed base64 (V2), which other tools also read."""
    text: str = histogram.encode().decode("ascii")
    return text


def decoded(text: str) -> HdrHistogram:
    """Read the output of ``encoded``.

    Raises:
        ValueError: the text is not a histogram.
    """
    try:
        return HdrHistogram.decode(text)
    except Exception as error:  # The library raises errors of many types.
        raise ValueError(f"not an HdrHistogram: {error}") from error


def _checked(text: str) -> str:
    decoded(text)
    return text


HistogramText = Annotated[str, AfterValidator(_checked)]


class KindSecond(StrictModel):
    """Requests of one kind that were meant to start in one second of the run."""

    second: int = Field(ge=0)
    """Since the start of the measurement; the record has no warm-up."""
    kind: str
    intended: int = Field(ge=0)
    """Planned arrivals (open loop), or requests sent (closed loop)."""
    late: int = Field(default=0, ge=0)
    """Sent too long after the intended start: the generator's fault."""
    dropped: int = Field(default=0, ge=0)
    """Never sent: too many requests were in flight."""
    fallbacks: int = Field(default=0, ge=0)
    """Right responses from the gateway's fallback."""
    errors: Mapping[str, int] = {}
    """By status (``503``) or kind (``ConnectionRefusedError``, ``timeout``). The expected 4xx
    for a bad request is not an error."""
    latency: HistogramText
    """Of right responses, from the intended start to the last byte read."""
    service: HistogramText
    """Likewise from the time of sending: the latency that a closed-loop test reports."""


class WorkerSample(StrictModel):
    """One worker process of the server at one time."""

    model: str
    worker: str
    """TorchServe's worker id."""
    pid: int
    status: str
    memory_bytes: int = Field(ge=0)
    """Resident set size."""
    cpu_percent: float = Field(ge=0)
    """Of one core, since the previous sample."""


class ServerSample(StrictModel):
    """Metrics of the server at one time."""

    at_s: float
    """Seconds since the start of the measurement."""
    reachable: bool
    queue_ms: float | None = None
    """Mean time in the queue of requests since the previous sample; None without any."""
    batch_sizes: Mapping[int, int] = {}
    """Batches since the previous sample, by number of requests. TorchServe's histogram has exact
    sizes up to 2, then the upper bounds 5, 7 and 10; larger batches count by their mean size."""
    batched: int = 0
    """Requests in these batches."""
    workers: tuple[WorkerSample, ...] = ()


class Generator(StrictModel):
    """Metrics of the load generator itself."""

    processes: int = Field(ge=1)
    cpu_percent: float = Field(ge=0)
    """Of one core, of the busiest process."""
    lateness: HistogramText
    """Delay of each request after its intended start, in microseconds."""
    limited: str = ""
    """Why the generator, not the server, was the limit; empty if it was not."""


class Acknowledged(StrictModel):
    """Answers and events that the gateway acknowledged, looked for in its store afterwards."""

    answers: int = Field(ge=0)
    events: int = Field(ge=0)
    lost: tuple[str, ...] = ()
    """Request and event ids that the store does not have."""


class RunRecord(StrictModel):
    """Record of one run."""

    format: Literal[1] = 1
    scenario: str
    """``steady``, ``ramp``, ``spike``, ``soak``, ``day`` or ``locust``."""
    loop: Literal["open", "closed"]
    command: str
    started_at: datetime
    url: str
    models: Mapping[str, str] = {}
    """Version of each model under load."""
    seconds: float = Field(gt=0)
    """Length of the measurement."""
    settings: Mapping[str, str | int | float | bool | None] = {}
    """Rate, seed, traffic and everything else needed to repeat it."""
    load: tuple[KindSecond, ...]
    server: tuple[ServerSample, ...] = ()
    acknowledged: Acknowledged | None = None
    """None of a load on TorchServe."""
    generator: Generator

    def kinds(self) -> list[str]:
        """Return the kinds of request, sorted."""
        return sorted({part.kind for part in self.load})


def write_record(record: RunRecord, path: Path) -> None:
    """Write JSON atomically."""
    with write_aside(path) as aside:
        aside.write_text(record.model_dump_json(indent=1) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read the output of ``write_record``.

    Raises:
        SettingsError: the file does not exist or is not a record.
    """
    return read_model(path, RunRecord, "record of a load test")
