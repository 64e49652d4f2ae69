"""Confirms the figure of ``./run loadtest saturate`` by wrk, a generator in C.

``python -m benchmarks.loadtest.confirm FOLDER`` reads what ``saturate`` wrote there, sends the
same kinds of request to the same server by wrk, from so many connections that pause at random
that their requests are nearly a Poisson process, and bisects the greatest rate that keeps the
same limit. It prints both rates and their ratio; exit code 1 when they differ by more than
``MOST``.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import BenchmarkError
from benchmarks.serve.wrk import Load, Request, load
from loadtest.pool import draw_pool
from loadtest.record import RunRecord, read_record
from loadtest.traffic import BAD, TrafficSettings
from newshelf.errors import SettingsError
from newshelf.files import read_json
from newshelf.pipeline.find import only_server
from newshelf.server.client import Client

__all__ = ["MOST", "Found", "greatest_rate", "traffic_of"]

MOST = 0.15
"""Share by which the two generators' figures may differ."""
_CONNECTIONS = 200
_RESOLUTION = 0.04
_VOTES = 3
_DISTINCT = 500


@dataclass(frozen=True)
class Found:
    """The greatest rate that wrk found."""

    rate: float
    """Requests/s that it sent and had answered."""
    p99_ms: float
    """At that rate."""


def greatest_rate(
    measure: Callable[[float], Load | None], first: float, most_ms: float
) -> Found | None:
    """Bisect the rate at which p99 passes ``most_ms``, around ``first``.

    Args:
        measure: sends so many requests/s; None when answers were wrong or missing.
        first: where it is expected, requests/s.
        most_ms: the limit of p99.

    Returns:
        The greatest rate that kept it; None when not even a quarter of ``first`` does.
    """
    low, high = first / 4, first * 2
    best = _kept(measure, low, most_ms)
    if best is None:
        return None
    while high / low > 1 + _RESOLUTION:
        middle = (low * high) ** 0.5
        found = _kept(measure, middle, most_ms)
        if found is None:
            high = middle
        else:
            low, best = middle, found
    return Found(best.per_second, best.p99_ms)


def _kept(measure: Callable[[float], Load | None], rate: float, most_ms: float) -> Load | None:
    """The median of the loads that kept the limit, when most of them do."""
    kept: list[Load] = []
    failed = 0
    while max(len(kept), failed) <= _VOTES // 2:
        found = measure(rate)
        if found is not None and found.p99_ms <= most_ms:
            kept.append(found)
        else:
            failed += 1
    if failed > _VOTES // 2:
        return None
    return sorted(kept, key=lambda one: one.per_second)[len(kept) // 2]


def traffic_of(record: RunRecord) -> TrafficSettings:
    """The traffic that a run was made with, from its record's settings."""
    table: dict[str, Any] = {}
    mix: dict[str, Any] = {}
    for name, value in record.settings.items():
        section, _, rest = name.partition(".")
        if section != "traffic":
            continue
        if rest.startswith("mix."):
            mix[rest.removeprefix("mix.")] = value
        elif rest == "picture_px":
            table[rest] = [int(side) for side in str(value).split(",") if side]
        else:
            table[rest] = value
    return TrafficSettings.model_validate(table | {"mix": mix})


def _requests(record: RunRecord, headers: Mapping[str, str], folder: Path) -> Sequence[Request]:
    traffic = traffic_of(record).model_copy(update={"bad_share": 0.0, "requests": _DISTINCT})
    pool = draw_pool(Path(str(record.settings["catalog"])), traffic, [0])
    found = []
    for number, request in enumerate(one for one in pool if one.kind != BAD):
        path = folder / f"{number}.body"
        path.write_bytes(request.body(number))
        found.append(Request(request.path, path, {"Content-Type": request.content_type, **headers}))
    return found


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="of ./run loadtest saturate")
    parser.add_argument("--workspace", type=Path, default=None, help="of the running server")
    parser.add_argument("--catalog", type=Path, default=None, help="likewise")
    parser.add_argument("--token", default=None, help="instead of the running server's")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one load")
    options = parser.parse_args()
    saturation = read_json(options.folder / "saturation.json")
    record = read_record(options.folder / "record.json")
    latency = saturation["goal"]["latency"]
    if saturation["rate"] is None or latency["percent"] != 99:  # noqa: PLR2004 - what wrk tells
        raise SettingsError("there must be a rate, found for the 99th percentile")
    if options.token is None:
        with Client(only_server(options.catalog, options.workspace)) as client:
            headers = client.authorization()
    else:
        headers = {"Authorization": f"Bearer {options.token}"}
    with tempfile.TemporaryDirectory() as folder:
        requests = _requests(record, headers, Path(folder))

        def measure(rate: float) -> Load | None:
            try:
                found = load(
                    record.url, requests, clients=_CONNECTIONS, seconds=options.seconds,
                    pause_ms=1000 * _CONNECTIONS / rate,
                )  # fmt: skip
            except BenchmarkError as error:
                print(f"  {rate:.1f}/s asked for: {error}", flush=True)
                return None
            print(
                f"  {rate:.1f}/s asked for: {found.per_second:.1f}/s, p99 {found.p99_ms:.1f} ms",
                flush=True,
            )
            return found

        found = greatest_rate(measure, saturation["rate"], latency["most_ms"])
    if found is None:
        print("wrk finds no rate that keeps the limit")
        return 1
    ratio = found.rate / saturation["rate"]
    print(
        f"p99 ≤ {latency['most_ms']:g} ms: saturate {saturation['rate']:.1f}/s, wrk "
        f"{found.rate:.1f}/s (p99 {found.p99_ms:.1f} ms), ratio {ratio:.3f}"
    )
    return int(abs(ratio - 1) > MOST)


if __name__ == "__main__":
    raise SystemExit(_main())
