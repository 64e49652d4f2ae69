"""Embedding of a catalogue in one process and by Ray, in turns."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from benchmarks.results import BenchmarkError, Goal, RowBuilder, TaskResult
from benchmarks.shelf.command import ShelfContext
from export.embeddings import CatalogEncoder, encode_by_ray
from newshelf.catalog.catalog import read_catalog
from newshelf.pipeline.merged_catalog import catalog_items
from newshelf.pipeline.serve import served_recommender
from newshelf.pipeline.workspace import ROOT, open_workspace
from newshelf.rollout.versions import ARCHIVES, unpack
from newshelf.store.items import ItemWrite, StoredItem, seeded_item

_PRODUCTS, _ROWS, _SAMPLE_S = 1_000, 50, 0.25
_HERE, _ONE, _PER_CORE = "one process", "Ray, one process", "Ray, a process per core"
_BUSY, _CLOCK = "products per second of processor time", "products per second by the clock"


def run(context: ShelfContext) -> TaskResult:
    """Measure the archive of the drawn sample's workspace, on its products."""
    workspace = open_workspace(None)
    packed = served_recommender(workspace, context.console)
    archive = unpack(packed, workspace.shelf / ARCHIVES / packed.stem.partition("-")[2])
    table, starts = RowBuilder(), dict[str, list[float]]()
    for _ in range(context.rounds):
        for method in (_HERE, _ONE, _PER_CORE):
            found = _measured(method, archive, workspace.catalog)
            starts.setdefault(method, []).append(found.pop("start"))
            table.add(method, found, baseline=method == _HERE)
    cores = len(os.sched_getaffinity(0))
    shown = ", ".join(f"{name}: {min(taken):.1f} s" for name, taken in starts.items())
    return TaskResult(
        task="embed",
        title="Embedding of a catalogue",
        protocol=(
            f"{2 * _PRODUCTS:,} products of the drawn sample, the first half with pictures and "
            f"texts, the second with texts alone, in files of {_ROWS} (a twentieth of what "
            f"`./run embed` writes). {_HERE.capitalize()} and `{_ONE}` have {cores} threads, "
            f"`{_PER_CORE}` one each. Each run is a fresh process, in turns; measured from the "
            "first file to the last. Processor time is that of all processes, Ray's own too."
        ),
        rows=table.rows([_BUSY, _CLOCK]),
        goals=[Goal(name, 0.9, "times", method=_ONE) for name in (_BUSY, _CLOCK)],
        notes=[f"From the start to the first file: {shown}."],
        percent=False,
    )


def _measured(method: str, archive: Path, catalog: Path) -> dict[str, float]:
    command = [sys.executable, "-P", "-m", "benchmarks.shelf.embeddings"]
    with TemporaryDirectory(prefix="newshelf-embed-") as out:
        done = subprocess.run(
            [*command, method, str(archive), str(catalog), out],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise BenchmarkError(f"{method} failed: {done.stderr.strip()[-1500:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(method: str, archive: Path, products: list[StoredItem], out: Path) -> dict[str, float]:
    """Encode in this process, which must be a fresh one; return rates and the time to start."""
    began_s, threads = time.time(), len(os.sched_getaffinity(0))
    encoder = CatalogEncoder(archive, out, threads)
    shards = [*encoder.split(products, _ROWS)]
    if method == _HERE:
        written: Iterator[int] = map(encoder.write, shards)
    else:
        threads = threads if method == _ONE else 1
        written = encode_by_ray(shards, archive, out, None, threads)
    with _sampled() as samples:
        for _ in written:
            pass
    # Ray passes results on later than it has them.
    ends_s = sorted(path.stat().st_mtime for path in out.glob("part-*"))
    moments, busy = np.array(samples).T
    first_busy, last_busy = np.interp([ends_s[0], ends_s[-1]], moments, busy)
    products_after = len(products) - len(shards[0][1])
    return {
        _BUSY: products_after / float(last_busy - first_busy),
        _CLOCK: products_after / (ends_s[-1] - ends_s[0]),
        "start": ends_s[0] - began_s,
    }


@contextmanager
def _sampled() -> Iterator[list[tuple[float, float]]]:
    """Yield moments with the processor time until then, of this process and its descendants."""
    used: dict[int, float] = {}
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample() -> None:
        own = psutil.Process()
        for one in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                used[one.pid] = times.user + times.system
        samples.append((time.time(), sum(used.values())))

    def keep() -> None:
        while not ended.wait(_SAMPLE_S):
            sample()

    sample()
    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
        sample()


def benchmark_products(catalog: Path) -> list[StoredItem]:
    """Return a catalogue's first products with pictures, and those of texts alone."""
    found = [one for one in catalog_items(read_catalog(catalog)) if isinstance(one, ItemWrite)]
    chosen = [one for one in found if one.picture and one.columns.text()][:_PRODUCTS]
    texts = [ItemWrite(one.columns) for one in chosen]
    return [seeded_item(one) for one in (*chosen, *texts)]


def _main(method: str, archive: str, catalog: str, out: str) -> None:
    found: Any = measure(method, Path(archive), benchmark_products(Path(catalog)), Path(out))
    print(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
