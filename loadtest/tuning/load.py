"""Closed load on a server: requests drawn from a catalogue, sent by ``loadtest.closed_loop``.

The clients run as a separate program, so that their work is not mistaken for the server's.
"""

import base64
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from newshelf.catalog.catalog import Catalog
from newshelf.errors import CatalogError, ServerError
from newshelf.pipeline.workspace import ROOT

_PROGRAM = "loadtest.closed_loop"
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class LoadRequest:
    """A ``POST`` request."""

    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """A request that was answered with 200; times are nanoseconds since the epoch."""

    client: int
    sent_ns: int
    head_ns: int
    """The head of the response was read."""
    end_ns: int
    header: str | None
    """The kept header of the response."""


@dataclass(frozen=True, eq=False)
class LoadResult:
    """Latencies and failures of a load."""

    measured_s: float
    latencies_ms: NDArray[np.float64]
    """Of the requests that were answered with 200."""
    failures: Mapping[str, int]
    """By status or kind of error."""
    client_cpu_s: float
    exchanges: Sequence[Exchange] = field(default=())

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
        if not len(self.latencies_ms):
            return float("inf")
        return float(np.percentile(self.latencies_ms, percent, method="inverted_cdf"))


def run_load(
    url: str,
    headers: Mapping[str, str],
    requests: Sequence[LoadRequest],
    *,
    clients: int,
    seconds: float | None = None,
    count: int | None = None,
    warm_up_s: float = 0.0,
    kept_header: str | None = None,
) -> LoadResult:
    """Send ``requests`` in turn from ``clients``, each of which awaits its answer.

    Either for ``seconds`` or for a ``count`` of requests, after ``warm_up_s`` of the same load.
    ``kept_header`` keeps every exchange, with this header of its response.
    """
    plan = {
        "url": url,
        "headers": dict(headers),
        "requests": [
            {
                "path": request.path,
                "content_type": request.content_type,
                "body": base64.b64encode(request.body).decode("ascii"),
            }
            for request in requests
        ],
        "clients": clients,
        "seconds": seconds,
        "count": count,
        "warm_up_s": warm_up_s,
        "kept_header": kept_header,
    }
    # By standard input: arguments, and so the token, would show in the list of processes.
    done = subprocess.run(
        [sys.executable, "-P", "-m", _PROGRAM],
        input=json.dumps(plan),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"{_PROGRAM} failed: {done.stderr.strip()[-2000:]}")
    table = json.loads(done.stdout)
    return LoadResult(
        measured_s=table["measured_s"],
        latencies_ms=np.array(table["latencies_ns"], dtype=np.float64) / _NS_PER_MS,
        failures=table["failures"],
        client_cpu_s=table["cpu_s"],
        exchanges=[Exchange(*one) for one in table["exchanges"]],
    )


ModelName = Literal["encoder", "recommender"]

_LONGEST_HISTORY = 20
_K = 10


def draw_requests(
    model: ModelName, catalog: Catalog, count: int, *, seed: int = 7
) -> list[LoadRequest]:
    """Draw distinct requests: titles with pictures, or histories of 1 to 20 ids."""
    drawn = random.Random(seed)  # noqa: S311 - no secret
    if model == "recommender":
        bodies = [_history(catalog, drawn) for _ in range(count)]
    else:
        rows = [row for row in range(len(catalog.items)) if _has_content(catalog, row)]
        if not rows:
            raise CatalogError("no product of the catalogue has a title or a readable picture")
        bodies = [_product(catalog, drawn.choice(rows), drawn) for _ in range(count)]
    return [
        LoadRequest(f"/predictions/{model}", "application/json", json.dumps(body).encode())
        for body in bodies
    ]


def _history(catalog: Catalog, drawn: random.Random) -> dict[str, Any]:
    ids = catalog.items["id"]
    length = drawn.randint(1, min(_LONGEST_HISTORY, len(ids)))
    rows = drawn.sample(range(len(ids)), length)
    return {"history": [str(ids.iloc[row]) for row in rows], "k": _K}


def _has_content(catalog: Catalog, row: int) -> bool:
    return isinstance(catalog.items["title"].iloc[row], str) or bool(catalog.image_path(row))


def _product(catalog: Catalog, row: int, drawn: random.Random) -> dict[str, Any]:
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
