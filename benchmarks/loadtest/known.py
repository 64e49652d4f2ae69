"""Searches and comparisons on servers whose service time is known (``loadtest.servers``).

``python -m benchmarks.loadtest.known saturate`` searches the greatest rate three times, each
time with other arrivals, and prints it beside the one that queueing gives: one worker, a fixed
service time, Poisson arrivals. ``… compare`` makes pairs of runs of one version, and pairs of
which the second is 10 % slower, and counts what ``compare`` says of them.

Such a server sleeps, and needs next to nothing of a core, so several runs share the machine.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from loadtest.compare import compare
from loadtest.record import RunRecord, write_record
from loadtest.run import run_load
from loadtest.saturate import Goal, Saturation, Search, saturate
from loadtest.scenarios import LoadPlan
from loadtest.servers import known_server
from loadtest.traffic import TrafficSettings
from newshelf.sample.build import draw_sample
from newshelf.tuning.slo import LatencyLimit

__all__ = ["greatest_rate"]

_SERVICE_MS = 20.0
_LIMIT = LatencyLimit(99, 100.0)
_SLOWER = 1.1
_RATE = 30.0
_TRAFFIC = TrafficSettings(
    mix={"recommend history": 1.0}, cold_share=0.0, bad_share=0.0, requests=200
)
_AT_ONCE = 4
_ARRIVALS = 1_000_000


def greatest_rate(service_ms: float, limit: LatencyLimit, seed: int = 0) -> float:
    """The rate at which M/D/1 reaches ``limit``, by bisection on a million arrivals.

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
    return run_load(plan, command="benchmarks.loadtest.known")


def _search(catalog: Path, seconds: float, seed: int) -> Saturation:
    runs = 0

    def measure(rate: float, length: float) -> RunRecord:
        nonlocal runs
        runs += 1
        print(f"search {seed}: run {runs}, {rate:.1f}/s", flush=True)
        return _run(url, catalog, rate=rate, seconds=length, seed=1000 * seed + runs)

    with known_server(service_ms=_SERVICE_MS) as url:
        return saturate(measure, Goal(_LIMIT), Search(8.0, seconds=seconds))


def _saturate(catalog: Path, seconds: float) -> int:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda seed: _search(catalog, seconds, seed), (1, 2, 3)))
    truth = greatest_rate(_SERVICE_MS, _LIMIT)
    rates = []
    for one in found:
        rate = one.rate or 0.0
        rates.append(rate)
        print(f"{rate:.1f}/s in {len(one.trials)} runs, {rate / truth:.3f} of {truth:.1f}/s "
              f"({one.limited_by}: {one.reason})")  # fmt: skip
    print(f"greatest by smallest of the three: {max(rates) / max(min(rates), 1e-9):.3f}")
    return 0


def _pair(catalog: Path, seconds: float, seed: int) -> Sequence[RunRecord]:
    """The version, itself again, and one that is slower; all with the same arrivals."""
    records = []
    for service_ms in (_SERVICE_MS, _SERVICE_MS, _SERVICE_MS * _SLOWER):
        with known_server(service_ms=service_ms) as url:
            record = _run(url, catalog, rate=_RATE, seconds=seconds, seed=seed)
            records.append(record)
    return records


def _compare(catalog: Path, seconds: float, trials: int, kept: Path | None) -> int:
    same: Counter[str] = Counter()
    slower: Counter[str] = Counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        seeds = range(1, trials + 1)
        pairs = pool.map(lambda seed: _pair(catalog, seconds, seed), seeds)
        for seed, (first, again, other) in zip(seeds, pairs, strict=True):
            if kept is not None:
                for name, record in (("a", first), ("again", again), ("slower", other)):
                    write_record(record, kept / f"{seed}-{name}.json")
            same[compare(first, again).word] += 1
            slower[compare(first, other).word] += 1
            print(f"same version: {dict(same)}; 10 % slower: {dict(slower)}", flush=True)
    return 0


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("saturate", "compare"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of one run")
    parser.add_argument("--trials", type=int, default=20, help="pairs that are compared")
    parser.add_argument("--keep", type=Path, default=None, help="takes the records of the pairs")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "shop"
        draw_sample(catalog, products=60, shoppers=40)
        if words.what == "saturate":
            return _saturate(catalog, words.seconds)
        return _compare(catalog, words.seconds, words.trials, words.keep)


if __name__ == "__main__":
    raise SystemExit(_main())
