"""Closed load on a server: its plan and result, and requests drawn from a catalogue.

The clients run as a separate program, ``loadtest.closed_loop``, so that neither their work nor
their garbage collection is mistaken for the server's.
"""

import base64
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from loadtest.requests import Rendered, as_json
from newshelf.errors import CatalogError, ServerError
from newshelf.pipeline.workspace import ROOT

if TYPE_CHECKING:
    # The program imports this module, and reads no table.
    from newshelf.catalog.catalog import Catalog

_PROGRAM = "loadtest.closed_loop"
_MAX_REASON = 2000
_STRICT = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


@dataclass(frozen=True, config=_STRICT)
class ClosedLoopPlan:
    """A closed load, which ends after ``seconds`` or ``count`` requests."""

    url: str
    """``http://HOST:PORT``."""
    requests: Annotated[Sequence[Rendered], Field(min_length=1)]
    """Sent in turn."""
    clients: Annotated[int, Field(ge=1)]
    """Each of which awaits its answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    """Length of the measurement."""
    count: int | None = None
    """Number of requests."""
    warm_up_s: float = 0.0
    """Seconds before the measurement, under the same load."""
    timeout_s: float = 30.0
    kept_header: str | None = None
    """Keep every exchange, with this header of its response."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if (self.seconds is None) == (self.count is None):
            raise ValueError("give seconds or count")
        return self


@dataclass(frozen=True)
class Exchange:
    """A request that was answered with 200; times are nanoseconds since the epoch."""

    client: int
    sent_ns: int
    end_ns: int
    header: str | None
    """The kept header of the response."""


@dataclass
class LoadResult:
    """Latencies and failures of a load."""

    measured_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """Of each response with status 200, from the first byte sent to the last one read."""
    failures: dict[str, int] = field(default_factory=dict)
    """By status or kind of error."""
    client_cpu_s: float = 0.0
    """CPU time of the clients during the measurement."""
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Requests per second that were answered with 200."""
        return len(self.latencies_ms) / self.measured_s if self.measured_s > 0 else 0.0

    @property
    def failed_share(self) -> float:
        """Share of failed requests, between 0 and 1; 1 if none was answered."""
        failed = sum(self.failures.values())
        total = failed + len(self.latencies_ms)
        return failed / total if total else 1.0

    def percentile_ms(self, percent: float) -> float:
        """Return the lowest latency that ``percent`` do not exceed; infinite without any."""
        if not self.latencies_ms:
            return float("inf")
        return float(np.percentile(self.latencies_ms, percent, method="inverted_cdf"))


PLAN, RESULT = TypeAdapter(ClosedLoopPlan), TypeAdapter(LoadResult)
"""Their JSON, which the program reads and writes."""


def run_load(plan: ClosedLoopPlan) -> LoadResult:
    """Send the requests in turn from clients of a separate process.

    Raises:
        ServerError: the process fails.
    """
    # By standard input: arguments, and so the token, would show in the list of processes.
    done = subprocess.run(
        [sys.executable, "-P", "-m", _PROGRAM],
        input=PLAN.dump_json(plan),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip()
        raise ServerError(f"{_PROGRAM} failed: {reason[-_MAX_REASON:]}")
    return RESULT.validate_json(done.stdout)


ModelName = Literal["encoder", "recommender"]

_LONGEST_HISTORY = 20
_K = 10


def draw_requests(
    model: ModelName, catalog: "Catalog", count: int, *, seed: int = 7
) -> list[Rendered]:
    """Draw distinct requests: titles with pictures, or histories of 1 to 20 ids."""
    drawn = random.Random(seed)  # noqa: S311 - no secret
    if model == "recommender":
        bodies = [_history(catalog, drawn) for _ in range(count)]
    else:
        rows = [row for row in range(len(catalog.items)) if _has_content(catalog, row)]
        if not rows:
            raise CatalogError("no product of the catalogue has a title or a readable picture")
        bodies = [_product(catalog, drawn.choice(rows), drawn) for _ in range(count)]
    return [as_json(model, f"/predictions/{model}", body) for body in bodies]


def _history(catalog: "Catalog", drawn: random.Random) -> dict[str, Any]:
    ids = catalog.items["id"]
    length = drawn.randint(1, min(_LONGEST_HISTORY, len(ids)))
    rows = drawn.sample(range(len(ids)), length)
    return {"history": [str(ids.iloc[row]) for row in rows], "k": _K}


def _has_content(catalog: "Catalog", row: int) -> bool:
    return isinstance(catalog.items["title"].iloc[row], str) or bool(catalog.image_path(row))


def _product(catalog: "Catalog", row: int, drawn: random.Random) -> dict[str, Any]:
    """Return a product whose embedding no worker has cached."""
    product: dict[str, Any] = {}
    title = catalog.items["title"].iloc[row]
    if isinstance(title, str):
        product["title"] = f"{title} {drawn.randrange(10**9)}"
    path = catalog.image_path(row)
    if path is not None:
        # Decoders ignore what follows the end of a picture.
        picture = path.read_bytes() + drawn.randbytes(8)
        product["image"] = base64.b64encode(picture).decode("ascii")
    return product
