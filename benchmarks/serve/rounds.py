"""Rounds of measurements: contenders in turns, A B C, A B C, so that disturbances meet all."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import markdown_table
from benchmarks.serve.contender import Contender, Endpoint, check_answers, wait_for_answer
from benchmarks.serve.cpu import Others, Spent
from benchmarks.serve.wrk import Load, load

_DISTURBED = 0.03
_ATTEMPTS = 3
_DRAINED = 8


@dataclass(frozen=True)
class PictureLoad:
    """Load of a server in each of its turns."""

    pictures: Sequence[Path]
    reference: NDArray[np.float32] | None
    """``(len(pictures), 512)``; None if every endpoint has its own expected answers."""
    clients: Sequence[int]
    seconds: float
    warm_up_s: float


@dataclass
class Measured:
    """Loads of one contender, from all its turns."""

    name: str
    layout: str
    cosine: float | None = None
    """Smallest cosine to the reference over all turns; None if nothing was compared."""
    loads: dict[int, list[Load]] = field(default_factory=dict)
    """Clients → one load per round."""
    disturbed: float = 0.0
    """Largest share of the cores that other work took in a turn."""

    def add(self, clients: int, found: Load) -> None:
        """Add the load of one round."""
        self.loads.setdefault(clients, []).append(found)

    def values(self, clients: int, name: str = "per_second") -> list[float]:
        """Return a field of ``Load`` for each round."""
        return [getattr(found, name) for found in self.loads[clients]]

    def cpu_us(self, clients: int, program: str | None = None) -> float | None:
        """Return the median CPU time of ``program`` (of all when None) per request.

        None without a server.
        """
        taken = [
            sum(us for name, us in found.cpu_us.items() if program in (None, name))
            for found in self.loads[clients]
            if found.cpu_us
        ]
        return float(np.median(taken)) if taken else None

    def keep(self, trial: "Measured", disturbed: float) -> None:
        """Add the loads of one turn."""
        for clients, loads in trial.loads.items():
            for found in loads:
                self.add(clients, found)
        if trial.cosine is not None:
            self.cosine = min(trial.cosine, 1.0 if self.cosine is None else self.cosine)
        self.disturbed = max(self.disturbed, disturbed)


@dataclass(frozen=True)
class Turn:
    """A measurement that is taken once per round."""

    name: str
    layout: str
    take: Callable[[Measured], None]
    """Measures once and adds to its argument."""


def server_turn(contender: Contender, plan: PictureLoad) -> Turn:
    """Return a turn that starts, checks, warms up, loads and stops a server."""

    def take(measured: Measured) -> None:
        with contender.run() as endpoint:
            _load(endpoint, plan, measured)

    return Turn(contender.name, contender.layout, take)


def run_rounds(turns: Sequence[Turn], rounds: int, console: Console) -> dict[str, Measured]:
    """Take every turn ``rounds`` times and print each result.

    Raises:
        BenchmarkError: a server did not start, or answered wrongly.
    """
    found = {turn.name: Measured(turn.name, turn.layout) for turn in turns}
    for number in range(1, rounds + 1):
        for turn in turns:
            take(turn, found[turn.name])
            console.print(f"round {number}: {_summary(found[turn.name])}", markup=False)
    return found


def run_servers(
    servers: Sequence[Contender], plan: PictureLoad, rounds: int, console: Console
) -> dict[str, Measured]:
    """Run the rounds of servers with the same load."""
    return run_rounds([server_turn(server, plan) for server in servers], rounds, console)


def take(turn: Turn, measured: Measured) -> None:
    """Take one turn; repeat it if other work disturbed it."""
    for attempt in range(1, _ATTEMPTS + 1):
        trial = Measured(turn.name, turn.layout)
        others = Others(len(os.sched_getaffinity(0)))
        turn.take(trial)
        share = others.share()
        if share <= _DISTURBED or attempt == _ATTEMPTS:
            measured.keep(trial, share)
            return


def _load(endpoint: Endpoint, plan: PictureLoad, measured: Measured) -> None:
    wait_for_answer(endpoint, plan.pictures[0])
    # All pictures of the load: the mean of 16 of EfficientNet-Lite0's 128 was .989, of all .992.
    measured.cosine = check_answers(endpoint, plan.pictures, plan.reference)
    least = len(endpoint.ask_bytes(plan.pictures[0])) // 2
    with tempfile.TemporaryDirectory() as folder:
        requests = endpoint.requests(list(plan.pictures), Path(folder))
        # From few to many: some servers adapt their waiting time to the previous load.
        for clients in sorted(plan.clients):
            load(endpoint.url, requests, clients=clients, seconds=plan.warm_up_s)
            drain(endpoint, plan.pictures)
            spent = Spent.watch(endpoint.process)
            found = load(
                endpoint.url,
                requests,
                clients=clients,
                seconds=plan.seconds,
                least_bytes=least,
            )
            cpu_us = spent.per_request_us(found.requests)
            measured.add(clients, replace(found, cpu_us=cpu_us))


def drain(endpoint: Endpoint, pictures: Sequence[Path]) -> None:
    """Wait until the requests left in the queue by the last load are done."""
    for picture in pictures[:_DRAINED]:
        endpoint.ask_bytes(picture)


def _summary(measured: Measured) -> str:
    parts = [
        f"{clients} clients {loads[-1].per_second:.1f}/s, p50 {loads[-1].p50_ms:.1f}, "
        f"p99 {loads[-1].p99_ms:.1f} ms"
        for clients, loads in measured.loads.items()
    ]
    return f"{measured.name}: {'; '.join(parts)}"


def details(found: Sequence[Measured]) -> str:
    """Return a table of every contender and number of clients."""
    header = (
        "contender",
        "layout",
        "clients",
        "per second",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "CPU ms",
        "cos",
        "others",
    )
    rows = []
    for one in found:
        for clients in one.loads:
            speeds = one.values(clients)
            spread = f"{median(speeds):.1f} ({min(speeds):.1f}–{max(speeds):.1f})"
            times = [f"{median(one.values(clients, f'{p}_ms')):.1f}" for p in ("p50", "p90", "p99")]
            cpu_us = one.cpu_us(clients)
            cpu = "–" if cpu_us is None else f"{cpu_us / 1e3:.2f}"
            cosine = "–" if one.cosine is None else f"{one.cosine:.4f}"
            rows.append(
                (
                    one.name,
                    one.layout,
                    str(clients),
                    spread,
                    *times,
                    cpu,
                    cosine,
                    f"{one.disturbed:.0%}",
                )
            )
    text = (
        "Medians of the rounds; in brackets the least and the most of them. *CPU* is what the "
        "server's processes took of a core per request, the client's not counted; *cos* the least "
        "cosine to the float32 model's answers, *others* the most that other processes took of "
        "the cores during a turn; a turn with more than 3 % is taken again, three times at most."
    )
    return f"{markdown_table(header, 'llrrrrrrrr', rows)}\n\n{text}"
