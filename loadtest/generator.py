"""One process of a load test: ``python -m loadtest.generator``, which ``loadtest.run`` starts.

Standard input holds lines: a JSON object with the ``plan``, as the text of ``plan_to_json``, and
the ``stream`` of this process;
the time to start at (``time.monotonic_ns``, one clock for all processes); and optionally
``stop``. Standard output holds JSON objects, one per line: ``ready`` or ``refused``, then
``seen`` once a second, and ``done``.
"""

import gc
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import cycle
from typing import Any

import gevent
from gevent.fileobject import FileObjectPosix

from loadtest.engine import Sender, closed_loop, fresh_numbers, open_loop, sleep_until
from loadtest.http_client import check_server, with_head
from loadtest.pool import draw_pool
from loadtest.recorder import Observations, Outcome
from loadtest.requests import Rendered
from loadtest.scenarios import LoadPlan, RandomStream, plan_from_json
from loadtest.shoppers import Shoppers, draw_shoppers
from loadtest.traffic import ShopTraffic
from newshelf.errors import NewshelfError

_REPORT_S = 1.0
_NS_PER_S = 1_000_000_000


class LoadProcess:
    """Sends one process's share of a plan."""

    def __init__(self, plan: LoadPlan, stream: int) -> None:
        """Draw the requests of process ``stream``.

        Raises:
            CatalogError: the catalogue lacks what the traffic needs.
        """
        self._plan, self._stream = plan, stream
        self._numbers = fresh_numbers(stream, plan.processes)
        self._shoppers: Shoppers | None = None
        seed = [plan.seed, stream, RandomStream.TRAFFIC]
        if isinstance(plan.traffic, ShopTraffic):
            self._shoppers = draw_shoppers(plan.catalog, plan.traffic, seed, next(self._numbers))
            self._firsts = self._shoppers.firsts()
            self._measured = self._warm_up = self._with_heads(self._shoppers)
        else:
            self._firsts = draw_pool(plan.catalog, plan.traffic, seed)
            requests = [*self._with_heads(self._firsts)]
            self._measured, self._warm_up = cycle(requests), cycle(requests[::-1])
        self._start_ns = 0
        self._sending = gevent.Greenlet()
        self._stopped = False
        self.cpu_percent = 0.0
        """Of one core, during the measurement."""

    def check_server(self) -> dict[str, str]:
        """See ``loadtest.http_client.check_server``."""
        return check_server(
            self._plan.url,
            self._plan.headers,
            self._firsts,
            number=next(self._numbers),
            timeout_s=self._plan.timeout_s,
        )

    def run(self, start_ns: int) -> None:
        """Send everything, warm-up included, and wait for the last response.

        The measurement starts at ``start_ns`` of ``time.monotonic_ns``.
        """
        plan = self._plan
        self._start_ns = start_ns
        self._observations = Observations(start_ns)
        self._sender = Sender(
            plan.url,
            self._observations.record,
            self._numbers,
            timeout_s=plan.timeout_s,
            max_in_flight=len(range(self._stream, plan.max_in_flight, plan.processes)),
        )
        self._sending = gevent.spawn(self._open if plan.loop == "open" else self._closed)
        sleep_until(start_ns)
        cpu_from, clock_from = time.process_time(), time.monotonic()
        self._sending.get()
        self.cpu_percent = (
            100 * (time.process_time() - cpu_from) / max(1e-9, time.monotonic() - clock_from)
        )
        self._sender.wait()

    def stop(self) -> None:
        """Send no more requests."""
        self._stopped = True
        self._sending.kill()

    def take(self) -> dict[str, Any]:
        """Return the outcomes since the last call, and the first second that is not complete."""
        from_ns = self._sender.unfinished_from_ns()
        second = 0 if from_ns is None else (from_ns - self._start_ns) // _NS_PER_S
        return {**self._observations.take().to_json(), "unfinished_from": second}

    def kept(self) -> dict[str, Any]:
        """Return what a gateway acknowledged, as JSON."""
        return asdict(self._shoppers.kept) if self._shoppers else {}

    def _with_heads(self, requests: Iterable[Rendered]) -> Iterator[Rendered]:
        return (with_head(request, self._plan.url, self._plan.headers) for request in requests)

    def _open(self) -> None:
        plan = self._plan
        warm_up_ns = int(plan.warm_up_s * _NS_PER_S)
        open_loop(plan.warm_up_arrivals(self._stream), self._start_ns - warm_up_ns, self._offer)
        open_loop(plan.arrivals(self._stream), self._start_ns, self._offer)
        sleep_until(self._end_ns)

    def _closed(self) -> None:
        plan = self._plan
        closed_loop(
            range(self._stream, plan.clients or 0, plan.processes),
            self._send,
            think_s=plan.think_s,
            seed=(plan.seed, RandomStream.THINKING),
            end_ns=self._end_ns,
        )

    def _offer(self, intended_ns: int) -> None:
        self._sender.offer(self._next(intended_ns), intended_ns)

    def _send(self, _client: int) -> Outcome | None:
        if self._stopped:
            return None
        return self._sender.send(self._next(time.monotonic_ns()))

    def _next(self, intended_ns: int) -> Rendered:
        return next(self._warm_up if intended_ns < self._start_ns else self._measured)

    @property
    def _end_ns(self) -> int:
        return self._start_ns + int(self._plan.seconds * _NS_PER_S)


def _main() -> None:
    # epoll, the default, wakes up to a millisecond late; select in a tenth of that.
    gevent.config.libev_backend = "select"
    # Ctrl-C is for the parent process, which then says stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines, out = FileObjectPosix(0, "r"), FileObjectPosix(1, "wb")

    def say(**message: Any) -> None:
        out.write(json.dumps(message).encode() + b"\n")
        out.flush()

    try:
        task = json.loads(lines.readline())
        process = LoadProcess(plan_from_json(task["plan"]), task["stream"])
        models = process.check_server() if task["stream"] == 0 else {}
    except NewshelfError as error:
        say(refused=error.body())
        return
    # Existing objects stay alive: the collector need not scan them again and again.
    gc.collect()
    gc.freeze()
    say(ready={"models": models})
    start_ns = int(lines.readline() or os._exit(1))
    running = gevent.spawn(process.run, start_ns)
    gevent.spawn(_listen, lines, process)
    while not running.ready():
        running.join(_REPORT_S)
        say(seen=process.take())
    running.get()
    say(done={"cpu_percent": process.cpu_percent, "kept": process.kept()})


def _listen(lines: FileObjectPosix, process: LoadProcess) -> None:
    for line in lines:
        if line.strip() == "stop":
            process.stop()
    # The parent process is gone: nobody would read the outcomes.
    os._exit(1)


if __name__ == "__main__":
    _main()
