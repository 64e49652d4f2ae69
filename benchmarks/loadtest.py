"""Verification of the load generator: by wrk, and on servers whose service time is known.

Such a server sleeps and needs next to no CPU time, so several runs share the machine.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import BenchmarkError
from benchmarks.serve.wrk import Load, Request, load
from benchmarks.servers import known_server
from loadtest.compare import compare
from loadtest.pool import draw_pool
from loadtest.record import RunRecord, read_record, write_record
from loadtest.run import run_load
from loadtest.saturate import RateGoal, RateSearch, Saturation, saturate
from loadtest.scenarios import LoadPlan
from loadtest.slo import LatencyLimit
from loadtest.traffic import BAD, TrafficSettings
from newshelf.errors import SettingsError
from newshelf.files import read_json
from newshelf.pipeline.workspace import only_server
from newshelf.sample.build import draw_sample
from newshelf.server.client import Client

MOST = 0.15
"""Share by which the figures of the two generators may differ."""
_CONNECTIONS = 200
_RESOLUTION = 0.04
_VOTES = 3
_DISTINCT = 500
_SERVICE_MS = 20.0
_LIMIT = LatencyLimit(99, 100.0)
_SLOWER = 1.1
_RATE = 30.0
_TRAFFIC = TrafficSettings(
    mix={"recommend history": 1.0}, cold_share=0.0, bad_share=0.0, requests=200
)
_AT_ONCE = 4
_ARRIVALS = 1_000_000


@dataclass(frozen=True)
class WrkRate:
    """Greatest rate by wrk."""

    rate: float
    """Answered requests/s."""
    p99_ms: float
    """At that rate."""


def greatest_rate(
    measure: Callable[[float], Load | None], first: float, most_ms: float
) -> WrkRate | None:
    """Bisect the rate at which p99 passes ``most_ms``, around ``first``.

    ``measure`` returns None if answers were wrong or missing. None is returned if not even a
    quarter of ``first`` keeps the limit.
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
    return WrkRate(best.per_second, best.p99_ms)


def _kept(measure: Callable[[float], Load | None], rate: float, most_ms: float) -> Load | None:
    """Return the median of the loads within the limit, if most of them are."""
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
    """Return the traffic of a run, from the settings in its record."""
    if record.settings.get("traffic.via") == "gateway":
        raise SettingsError("wrk sends no shoppers: confirm a search with --via torchserve")
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


def confirm_rate(
    folder: Path, workspace: Path | None, catalog: Path | None, token: str | None, seconds: float
) -> int:
    """Compare the rate found by ``./run loadtest saturate`` with wrk's; print both.

    wrk sends the same kinds of request to the same server from many connections that pause at
    random, so that its arrivals are nearly a Poisson process.

    Args:
        folder: the output of ``saturate``.
        workspace: of the running server.
        catalog: of the running server.
        token: used instead of the running server's.
        seconds: length of one load.

    Returns:
        1 when the rates differ by more than ``MOST``, otherwise 0.

    Raises:
        SettingsError: ``saturate`` found no rate, or one for another percentile.
    """
    saturation = read_json(folder / "saturation.json")
    record = read_record(folder / "record.json")
    latency = saturation["goal"]["latency"]
    if saturation["rate"] is None or latency["percent"] != 99:  # noqa: PLR2004 - what wrk tells
        raise SettingsError("there must be a rate, found for the 99th percentile")
    if token is None:
        with Client(only_server(catalog, workspace)) as client:
            headers = client.authorization()
    else:
        headers = {"Authorization": f"Bearer {token}"}
    with tempfile.TemporaryDirectory() as bodies:
        requests = _requests(record, headers, Path(bodies))

        def measure(rate: float) -> Load | None:
            try:
                found = load(
                    record.url, requests, clients=_CONNECTIONS, seconds=seconds,
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


@contextmanager
def _shop() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "shop"
        draw_sample(catalog, products=60, shoppers=40)
        yield catalog


def known_rate(service_ms: float, limit: LatencyLimit, seed: int = 0) -> float:
    """Return the rate at which M/D/1 reaches ``limit``, by bisection on a million arrivals.

    The n-th request is done at the greatest of a_k + (n - k + 1) d, k ≤ n (Lindley 1952).
    """
    gaps = np.cumsum(np.random.default_rng(seed).exponential(1e3, _ARRIVALS))
    work = service_ms * np.arange(1, _ARRIVALS + 1)
    low, high = 1.0, 1e3 / service_ms
    while high / low > 1.001:  # noqa: PLR2004 - far finer than what it is compared with
        rate = (low * high) ** 0.5
        arrivals = gaps / rate
        done = work + np.maximum.accumulate(arrivals - (work - service_ms))
        late = np.percentile(done - arrivals, limit.percent)
        low, high = (rate, high) if late <= limit.most_ms else (low, rate)
    return low


def _run(url: str, catalog: Path, *, rate: float, seconds: float, seed: int) -> RunRecord:
    plan = LoadPlan(
        url=url, catalog=catalog, seconds=seconds, warm_up_s=2.0, rate=rate, seed=seed,
        traffic=_TRAFFIC,
    )  # fmt: skip
    return run_load(plan, command="./run bench loadtest")


def _search(catalog: Path, seconds: float, seed: int) -> Saturation:
    runs = 0

    def measure(rate: float, length: float) -> RunRecord:
        nonlocal runs
        runs += 1
        print(f"search {seed}: run {runs}, {rate:.1f}/s", flush=True)
        return _run(url, catalog, rate=rate, seconds=length, seed=1000 * seed + runs)

    with known_server(service_ms=_SERVICE_MS) as url:
        return saturate(measure, RateGoal(_LIMIT), RateSearch(8.0, seconds=seconds))


def saturate_known(seconds: float) -> None:
    """RateSearch the greatest rate three times, with other arrivals; print it with queueing's."""
    with _shop() as catalog, ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda seed: _search(catalog, seconds, seed), (1, 2, 3)))
    truth = known_rate(_SERVICE_MS, _LIMIT)
    rates = []
    for one in found:
        rate = one.rate or 0.0
        rates.append(rate)
        print(f"{rate:.1f}/s in {len(one.trials)} runs, {rate / truth:.3f} of {truth:.1f}/s "
              f"({one.limited_by}: {one.reason})")  # fmt: skip
    print(f"greatest by smallest of the three: {max(rates) / max(min(rates), 1e-9):.3f}")


def _pair(catalog: Path, seconds: float, seed: int) -> Sequence[RunRecord]:
    """Run a version twice and a slower one, all with the same arrivals."""
    records = []
    for service_ms in (_SERVICE_MS, _SERVICE_MS, _SERVICE_MS * _SLOWER):
        with known_server(service_ms=service_ms) as url:
            record = _run(url, catalog, rate=_RATE, seconds=seconds, seed=seed)
            records.append(record)
    return records


def compare_known(seconds: float, trials: int, kept: Path | None) -> None:
    """Compare ``trials`` pairs of one version and as many with a slower one; count verdicts."""
    same: Counter[str] = Counter()
    slower: Counter[str] = Counter()
    with _shop() as catalog, ThreadPoolExecutor(_AT_ONCE) as pool:
        seeds = range(1, trials + 1)
        pairs = pool.map(lambda seed: _pair(catalog, seconds, seed), seeds)
        for seed, (first, again, other) in zip(seeds, pairs, strict=True):
            if kept is not None:
                for name, record in (("a", first), ("again", again), ("slower", other)):
                    write_record(record, kept / f"{seed}-{name}.json")
            same[compare(first, again).word] += 1
            slower[compare(first, other).word] += 1
            print(f"same version: {dict(same)}; 10 % slower: {dict(slower)}", flush=True)
