"""Keeps what Locust's users see in histograms without rounding, of all its processes.

Workers send what they saw with their reports; the master, or the only process, sums it up.
"""

import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.locust_options import command_line
from loadtest.record import Generator, RunRecord, decoded, encoded, merged, write_record
from loadtest.recorder import DROPPED, RIGHT, Block, Observations, Recorder, why_limited

_US_PER_MS = 1000
_LATE_AFTER_MS = 10.0
_REPORT = "newshelf"
_STARTED_AT = "newshelf_started_at"


class Dropped(Exception):
    """An arrival that was not sent, since too many requests were under way."""


class Watch:
    """Listens to one Locust process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._observed = Observations()
        self._recorder = Recorder(_LATE_AFTER_MS)
        self._started_at = time.time()
        self._ended_at: float | None = None
        self._last_start = 0.0
        self._cpu_from = time.process_time()
        self._workers: dict[str, float] = {}
        events = environment.events
        events.test_start.add_listener(self._start)
        events.test_stop.add_listener(self._stop)
        events.request.add_listener(self._see)
        if isinstance(environment.runner, WorkerRunner):
            events.report_to_master.add_listener(self._send)
        if isinstance(environment.runner, MasterRunner):
            events.worker_report.add_listener(self._receive)

    def percentile_ms(self, percent: float) -> float | None:
        """Of the latencies of all right answers; None without any."""
        self._sum_up()
        total = merged(decoded(part.latency) for part in self._recorder.load())
        if not total.total_count:
            return None
        return float(total.get_value_at_percentile(percent)) / _US_PER_MS

    def write(self, path: Path, *, is_open: bool, settings: Mapping[str, Any]) -> None:
        """Write the record of the run."""
        self._sum_up()
        lateness = self._recorder.lateness
        busiest_percent = max(self._workers.values(), default=self._cpu_percent())
        seconds = self._seconds()
        record = RunRecord(
            scenario="locust",
            loop="open" if is_open else "closed",
            command=command_line(sys.argv),
            started_at=datetime.fromtimestamp(self._started_at, UTC),
            url=self._environment.host or "",
            seconds=seconds,
            settings=settings,
            load=self._recorder.load(),
            generator=Generator(
                processes=max(1, len(self._workers)),
                cpu_percent=busiest_percent,
                lateness=encoded(lateness),
                limited=why_limited(
                    cpu_percent=busiest_percent,
                    lateness=lateness,
                    late_after_ms=_LATE_AFTER_MS,
                    sent_in_time=self._recorder.sent_in_time(seconds),
                ),
            ),
        )
        write_record(record, path)

    def _seconds(self) -> float:
        """From the start to the end, or to the last request that a user began after it."""
        ended_at = max(self._ended_at or time.time(), self._last_start)
        # Later than that request, so that its second is one of the run's.
        return math.nextafter(max(1e-3, ended_at - self._started_at), math.inf)

    def _cpu_percent(self) -> float:
        """Of one core, since the test began."""
        elapsed_s = (self._ended_at or time.time()) - self._started_at
        return 100 * (time.process_time() - self._cpu_from) / max(1e-3, elapsed_s)

    def _start(self, **_: Any) -> None:
        # Every test that a page starts is a run of its own.
        self._observed = Observations()
        self._recorder = Recorder(_LATE_AFTER_MS)
        self._started_at, self._ended_at = self._agreed_start(), None
        self._last_start = 0.0
        self._cpu_from = time.process_time()
        self._workers = {}

    def _agreed_start(self) -> float:
        """Epoch seconds; the master's options, which workers are sent, carry its own."""
        options = self._environment.parsed_options
        if not isinstance(self._environment.runner, WorkerRunner):
            setattr(options, _STARTED_AT, time.time())
        return float(getattr(options, _STARTED_AT))

    def _stop(self, **_: Any) -> None:
        self._ended_at = time.time()

    def _see(
        self,
        name: str,
        response_time: float,
        exception: BaseException | None,
        start_time: float,
        context: Mapping[str, Any],
        response: Any = None,
        **_: Any,
    ) -> None:
        self._last_start = max(self._last_start, start_time)
        self._observed.add(
            # Another machine's clock may be a little behind.
            max(0, int(start_time - self._started_at)),
            name,
            _outcome(exception, response),
            round(response_time * _US_PER_MS),
            round(context.get("service_ms", response_time) * _US_PER_MS),
            round(context.get("lateness_ms", 0.0) * _US_PER_MS),
        )

    def _sum_up(self) -> None:
        self._recorder.add(self._observed.take())

    def _send(self, data: dict[str, Any], **_: Any) -> None:
        data[_REPORT] = {
            "block": self._observed.take().to_json(),
            "cpu_percent": self._cpu_percent(),
            "last_start": self._last_start,
        }

    def _receive(self, client_id: str, data: Mapping[str, Any], **_: Any) -> None:
        report = data.get(_REPORT)
        if report is None:
            return
        self._recorder.add(Block.from_json(report["block"]))
        self._workers[client_id] = report["cpu_percent"]
        self._last_start = max(self._last_start, report["last_start"])


def _outcome(exception: BaseException | None, response: Any) -> str:
    if exception is None:
        return RIGHT
    if isinstance(exception, Dropped):
        return DROPPED
    status = getattr(response, "status_code", 0)
    if status:
        return str(status)
    return "timeout" if isinstance(exception, TimeoutError) else type(exception).__name__
