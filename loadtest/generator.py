"""One process of a load test: ``python -m loadtest.generator``, which ``loadtest.run`` starts.

Standard input holds lines: a JSON object with the ``plan`` and the ``stream`` of this process;
the time to start at (``time.monotonic_ns``, one clock for all processes); and optionally
``stop``. Standard output holds JSON objects, one per line: ``ready`` or ``refused``, then
``seen`` once a second, and ``done``.
"""

import gc
import json
import os
import signal
import time
from typing import Any

import gevent
from gevent.fileobject import FileObjectPosix

from loadtest.engine import TRAFFIC, Sender, closed_loop, fresh_numbers, open_loop, sleep_until
from loadtest.http_client import check_server
from loadtest.pool import draw_pool
from loadtest.scenarios import LoadPlan, plan_from_json
from newshelf.errors import NewshelfError

_REPORT_S = 1.0


class Generator:
    """Sends one process's share of a plan."""

    def __init__(self, plan: LoadPlan, stream: int) -> None:
        """Draw the requests of process ``stream``.

        Raises:
            CatalogError: the catalogue has not what the traffic needs.
        """
        self._plan, self._stream = plan, stream
        self._pool = draw_pool(plan.catalog, plan.traffic, [plan.seed, stream, TRAFFIC])
        self._numbers = fresh_numbers(stream, plan.processes)
        in_flight = len(range(stream, plan.max_in_flight, plan.processes))
        self._sender = Sender(plan, self._pool, self._numbers, in_flight)
        self._sending = gevent.Greenlet()
        self.cpu_percent = 0.0
        """Of one core, while it was measured."""

    def check_server(self) -> dict[str, str]:
        """See ``loadtest.http_client.check_server``."""
        return check_server(
            self._plan.url,
            self._plan.headers,
            self._pool,
            number=next(self._numbers),
            timeout_s=self._plan.timeout_s,
        )

    def run(self, start_ns: int) -> None:
        """Send everything, from the warm-up on, and wait for the last answers.

        Args:
            start_ns: when what is measured begins, by ``time.monotonic_ns``.
        """
        loop = open_loop if self._plan.loop == "open" else closed_loop
        self._sender.start_ns = start_ns
        self._sending = gevent.spawn(loop, self._plan, self._stream, self._sender, start_ns)
        sleep_until(start_ns)
        cpu_from, clock_from = time.process_time(), time.monotonic()
        self._sending.get()
        self.cpu_percent = (
            100 * (time.process_time() - cpu_from) / max(1e-9, time.monotonic() - clock_from)
        )
        self._sender.wait()

    def stop(self) -> None:
        """Send nothing more."""
        self._sending.kill()

    def take(self) -> dict[str, Any]:
        """What was seen since the last time, and from which second on more may be."""
        return {
            **self._sender.observed.take().to_json(),
            "unfinished_from": self._sender.unfinished_from(),
        }


def _main() -> None:
    # epoll, the default, wakes up to a millisecond late; select in a tenth of that.
    gevent.config.libev_backend = "select"
    # Ctrl-C is for the process that started this one, which then says stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines, out = FileObjectPosix(0, "r"), FileObjectPosix(1, "wb")

    def say(**message: Any) -> None:
        out.write(json.dumps(message).encode() + b"\n")
        out.flush()

    try:
        task = json.loads(lines.readline())
        generator = Generator(plan_from_json(json.dumps(task["plan"])), task["stream"])
        models = generator.check_server() if task["stream"] == 0 else {}
    except NewshelfError as error:
        say(refused=error.body())
        return
    # What was made so far lives on: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    say(ready={"models": models})
    start_ns = int(lines.readline() or os._exit(1))
    running = gevent.spawn(generator.run, start_ns)
    gevent.spawn(_listen, lines, generator)
    while not running.ready():
        running.join(_REPORT_S)
        say(seen=generator.take())
    running.get()
    say(done={"cpu_percent": generator.cpu_percent})


def _listen(lines: FileObjectPosix, generator: Generator) -> None:
    for line in lines:
        if line.strip() == "stop":
            generator.stop()
    # Whoever started this process is gone: nobody would read what it saw.
    os._exit(1)


if __name__ == "__main__":
    _main()
