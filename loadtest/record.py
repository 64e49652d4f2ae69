"""What a load test wrote down: the file that reports, limits and comparisons read.

Everything is kept per second of *intended* start and per kind of request, in histograms that
add up without loss, so that any total can be made of it later.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from hdrh.histogram import HdrHistogram
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from newshelf.files import read_model, write_aside

_LOWEST_US = 1
_HIGHEST_US = 10 * 60 * 1_000_000
_DIGITS = 3


def empty_histogram() -> HdrHistogram:
    """Microseconds from 1 µs to 10 minutes, to three significant digits."""
    return HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)


def encoded(histogram: HdrHistogram) -> str:
    """A histogram as HdrHistogram's compressed base64 (V2), which other tools read, too."""
    text: str = histogram.encode().decode("ascii")
    return text


def decoded(text: str) -> HdrHistogram:
    """The histogram of ``encoded``.

    Raises:
        ValueError: it is none.
    """
    try:
        return HdrHistogram.decode(text)
    except Exception as error:  # The library raises what its parts raise.
        raise ValueError(f"not an HdrHistogram: {error}") from error


def merged(histograms: Iterable[HdrHistogram]) -> HdrHistogram:
    """All of them added up."""
    total = empty_histogram()
    for histogram in histograms:
        total.add(histogram)
    return total


def _checked(text: str) -> str:
    decoded(text)
    return text


HistogramText = Annotated[str, AfterValidator(_checked)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KindSecond(_Record):
    """One kind of request, of those that were meant to start in one second of the run."""

    second: int = Field(ge=0)
    """Since the start of what is measured; warm-up is not in the record."""
    kind: str
    intended: int = Field(ge=0)
    """Arrivals that the plan asked for (open loop), or requests that were sent (closed)."""
    late: int = Field(default=0, ge=0)
    """Sent more than the lateness limit after their intended start: the generator's fault."""
    dropped: int = Field(default=0, ge=0)
    """Never sent, since too many were under way."""
    errors: Mapping[str, int] = {}
    """By status (``503``) or kind (``ConnectionRefusedError``, ``timeout``). A bad request that
    is answered with the 4xx it deserves is no error."""
    latency: HistogramText
    """Of the answers that were right, from the intended start to the last byte read."""
    service: HistogramText
    """The same from the moment of sending: what a closed-loop test would have called latency."""


class WorkerSample(_Record):
    """One worker process of the server at one moment."""

    model: str
    worker: str
    """TorchServe's id of it."""
    pid: int
    status: str
    memory_bytes: int = Field(ge=0)
    """Resident set size."""
    cpu_percent: float = Field(ge=0)
    """Of one core, since the sample before."""


class ServerSample(_Record):
    """What the server said of itself at one moment."""

    at_s: float
    """Seconds since the start of what is measured."""
    reachable: bool
    queue_ms: float | None = None
    """Mean time in the queue of the requests since the sample before; None without any."""
    batch_sizes: Mapping[int, int] = {}
    """Batches since the sample before, by number of requests in them. TorchServe's histogram
    tells 1 and 2 apart, and of larger ones the greatest size that they may have: 5, 7, 10; those
    above it are counted by their mean size."""
    batched: int = 0
    """Requests in those batches."""
    workers: tuple[WorkerSample, ...] = ()


class Generator(_Record):
    """The load's own side."""

    processes: int = Field(ge=1)
    cpu_percent: float = Field(ge=0)
    """Of one core, of the busiest process."""
    lateness: HistogramText
    """Of every sending, after its intended start, in microseconds."""
    limited: str = ""
    """Why the generator, not the server, set what was measured; empty when it did not."""


class RunRecord(_Record):
    """One run."""

    format: Literal[1] = 1
    scenario: str
    """``steady``, ``ramp``, ``spike``, ``soak``, ``day`` or ``locust``."""
    loop: Literal["open", "closed"]
    command: str
    started_at: datetime
    url: str
    models: Mapping[str, str] = {}
    """Version of each model that was loaded."""
    seconds: float = Field(gt=0)
    """That were measured."""
    settings: Mapping[str, str | int | float | bool | None] = {}
    """Rate, seed, traffic and whatever else says how to repeat it."""
    load: tuple[KindSecond, ...]
    server: tuple[ServerSample, ...] = ()
    generator: Generator

    def kinds(self) -> list[str]:
        """Kinds of request, in the order of their names."""
        return sorted({part.kind for part in self.load})

    def of(self, kind: str | None = None) -> Iterator[KindSecond]:
        """The seconds of one kind, or all."""
        return (part for part in self.load if kind in (None, part.kind))


def write_record(record: RunRecord, path: Path) -> None:
    """Write it as JSON: the whole file or nothing."""
    with write_aside(path) as aside:
        aside.write_text(record.model_dump_json(indent=1) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read what ``write_record`` wrote.

    Raises:
        SettingsError: there is no such file, or it is no record of a run.
    """
    return read_model(path, RunRecord, "record of a load test")
