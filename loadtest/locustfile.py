"""Locust scenario of the load engine: ``locust -f loadtest/locustfile.py``, see ``README.md``.

Locust has the users, the web page and the distribution over machines; the engine sends the
requests, and its recorder keeps their latencies without rounding.

``EncoderUser``, ``RecommenderUser``, ``Mix`` or ``OpenLoop`` can be named on the command line; the
default is ``Mix``, or ``OpenLoop`` with a ``--rate``. The exit code is 2 if there is nothing to
test, and 1 if a request failed or a limit was exceeded.
"""

import math
import random
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from gevent import get_hub, sleep
from locust import User, between, constant, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.acknowledged import GatewayStore
from loadtest.engine import Sender, fresh_numbers, sleep_until
from loadtest.http_client import check_server, with_head
from loadtest.options import LoadTarget, add_options, command_line, locust_target, traffic_of
from loadtest.pool import draw_kinds, draw_pool
from loadtest.record import Acknowledged, RunRecord, decoded, write_record
from loadtest.recorder import DROPPED, FALLBACK, RIGHT, Block, LoadRecorder, Observations, Outcome
from loadtest.report import store_sentence
from loadtest.requests import Rendered
from loadtest.shoppers import Kept, Shoppers, draw_shoppers
from loadtest.timeline import Latencies
from loadtest.traffic import Kind, ShopTraffic
from newshelf.errors import NewshelfError

_TIMEOUT_S = 30.0
_MAX_IN_FLIGHT = 1000
_LATE_AFTER_MS = 10.0
_REQUESTS_PER_KIND = 200
_MAX_PROCESSES = 64
"""Processes whose fresh numbers differ."""
_MIX = "mix"
_REPORT = "newshelf"
_STARTED_AT = "newshelf_started_at"
_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_NOT_TESTED, _FAILED = 2, 1


class _Process:
    """State that all users of this process share."""

    target: LoadTarget
    requests: "_Requests"
    measurement: "_Measurement"
    users = 0
    """Running in all processes together."""

    @classmethod
    def kept(cls) -> dict[str, Any]:
        """Return what a gateway acknowledged to this process, as JSON."""
        requests = getattr(cls, "requests", None)
        return asdict(requests.shoppers.kept) if requests and requests.shoppers else {}


class Dropped(Exception):
    """An arrival that was not sent because too many requests were in flight."""


class Failed(Exception):
    """A request without the right response."""


class _User(User):
    abstract = True
    kinds: tuple[Kind, ...] = ()
    """Kinds that the user requests by name."""
    max_in_flight = 1

    def on_start(self) -> None:
        """Create the sender."""
        self.sender = _Process.measurement.sender(self.max_in_flight)

    def on_stop(self) -> None:
        """Wait for responses to requests in flight."""
        self.sender.wait()

    def request(self, kind: Kind) -> None:
        """Send a request of this kind and wait for its response."""
        self.sender.send(_Process.requests.next(kind))


class EncoderUser(_User):
    """A shop that adds products."""

    kinds = ("encode picture", "encode text", "encode both")
    wait_time = between(0.05, 0.2)

    @tag("picture")
    @task(1)
    def picture(self) -> None:
        """Send a picture, bare or in a form."""
        self.request("encode picture")

    @tag("text")
    @task(1)
    def text(self) -> None:
        """Send JSON."""
        self.request("encode text")

    @tag("both")
    @task(2)
    def both(self) -> None:
        """Send JSON or a form."""
        self.request("encode both")


class RecommenderUser(_User):
    """Shoppers."""

    kinds = ("recommend history", "recommend unseen", "recommend candidates")
    wait_time = between(0.05, 0.2)

    @tag("history")
    @task(10)
    def history(self) -> None:
        """Send ids of the index: no tower runs."""
        self.request("recommend history")

    @tag("unseen")
    @task(1)
    def unseen(self) -> None:
        """Send a product with the request: all towers run."""
        self.request("recommend unseen")

    @tag("candidates")
    @task(2)
    def candidates(self) -> None:
        """Send candidates: only these are ranked."""
        self.request("recommend candidates")


class Mix(_User):
    """Shoppers and shop, in the shares of ``--mix``, ``--cold-share`` and ``--bad-share``."""

    wait_time = between(0.05, 0.2)

    @task
    def next_request(self) -> None:
        """Send the next request of the mix."""
        self.sender.send(_Process.requests.next(_MIX))


class OpenLoop(_User):
    """Poisson arrivals of ``--rate`` in total, which wait for no response.

    Users with an equal share of the rate each have the same arrivals as one with all of it.
    Latency counts from the intended start of a request.
    """

    wait_time = constant(0)
    max_in_flight = _MAX_IN_FLIGHT

    def on_start(self) -> None:
        """Start the arrivals."""
        super().on_start()
        self.random = random.Random()  # noqa: S311 - no secret
        self.next_ns = time.monotonic_ns()

    @task
    def arrival(self) -> None:
        """Wait for the next arrival and send it."""
        if not _Process.users:
            # The share is unknown until all users are started.
            sleep(0.05)
            self.next_ns = time.monotonic_ns()
            return
        rate = _options(self.environment).rate / _Process.users
        self.next_ns += int(self.random.expovariate(rate) * _NS_PER_S)
        sleep_until(self.next_ns)
        self.sender.offer(_Process.requests.next(_MIX), self.next_ns)
        # It is sent before the next one is waited for.
        sleep(0)


class _Requests:
    """The requests of one process, which all its users take in turn."""

    def __init__(self, environment: Environment, target: LoadTarget) -> None:
        """Draw the requests.

        Raises:
            CatalogError: the catalogue lacks what they need.
            SettingsError: the traffic's options are invalid.
        """
        options, runner = _options(environment), environment.runner
        index = runner.worker_index + 1 if isinstance(runner, WorkerRunner) else 0
        seed = (options.seed, index)
        shares = {"cold_share": options.cold_share, "bad_share": options.bad_share}
        given = {name: share for name, share in shares.items() if share is not None}
        traffic = traffic_of(options.via, options.mix or None, given)
        self.numbers = fresh_numbers(index, _MAX_PROCESSES)
        self.drawn: dict[str, list[Rendered]] = {}
        self.shoppers: Shoppers | None = None
        kinds = _kinds(environment)
        if isinstance(traffic, ShopTraffic):
            self.shoppers = draw_shoppers(target.catalog, traffic, seed, next(self.numbers))
            self.drawn[_MIX] = self.shoppers.firsts()
        else:
            if kinds:
                each = _REQUESTS_PER_KIND
                drawn = draw_kinds(target.catalog, traffic, seed, sorted(kinds), each)
                self.drawn.update((str(kind), requests) for kind, requests in drawn.items())
            if _runs(environment, Mix) or _runs(environment, OpenLoop):
                self.drawn[_MIX] = draw_pool(target.catalog, traffic, seed)
        self.address(target.url, target.headers)

    def address(self, url: str, headers: Mapping[str, str]) -> None:
        """Start over, with requests to this server."""
        self._turns: dict[str, Iterator[Rendered]] = {
            name: cycle([with_head(request, url, headers) for request in drawn])
            for name, drawn in self.drawn.items()
        }
        if self.shoppers is not None:
            self._turns[_MIX] = (with_head(one, url, headers) for one in self.shoppers)

    def next(self, name: str) -> Rendered:
        """Return the next request of a kind, or of the mix."""
        return next(self._turns[name])


class _Measurement:
    """Records the outcomes of one Locust process; the master sums up those of its workers."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._kept = Kept()
        self.acknowledged: Acknowledged | None = None
        self._reset(time.time())
        events = environment.events
        events.test_start.add_listener(self._start)
        events.test_stop.add_listener(self._stop)
        if isinstance(environment.runner, WorkerRunner):
            events.report_to_master.add_listener(self._report)
        if isinstance(environment.runner, MasterRunner):
            events.worker_report.add_listener(self._receive)

    def sender(self, max_in_flight: int) -> Sender:
        """Return a sender whose outcomes are recorded here and in Locust's statistics."""
        return Sender(
            self._environment.host or "",
            self._record,
            _Process.requests.numbers,
            timeout_s=_TIMEOUT_S,
            max_in_flight=max_in_flight,
        )

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latency of all right responses; infinite without any."""
        load = self._recorded().load()
        latencies = Latencies.merged(Latencies.of(decoded(part.latency)) for part in load)
        return latencies.percentile_ms(percent)

    def write(self, path: Path, *, is_open: bool, settings: Mapping[str, Any]) -> None:
        """Write the record of the run."""
        recorder = self._recorded()
        ended_at = self._ended_at or time.time()
        # A user may begin a request after the end; its second is part of the run.
        seconds = max(1e-3, ended_at - self._started_at, math.nextafter(self._latest_s, math.inf))
        cpu_percent = list(self._workers.values()) or [self._cpu_percent()]
        record = RunRecord(
            scenario="locust",
            loop="open" if is_open else "closed",
            command=command_line(sys.argv),
            started_at=datetime.fromtimestamp(self._started_at, UTC),
            url=self._environment.host or "",
            seconds=seconds,
            settings=settings,
            load=recorder.load(),
            generator=recorder.generator(cpu_percent, seconds),
            acknowledged=self.acknowledged,
        )
        write_record(record, path)

    def find_acknowledged(self) -> bool:
        """Look up what a gateway acknowledged; return whether nothing is lost."""
        if _Process.requests.shoppers is not None:
            self._kept.add(Kept(**_Process.kept()))
            store = GatewayStore(self._environment.host or "", _Process.target.headers)
            self.acknowledged = store.find(self._kept)
            print(store_sentence(self.acknowledged))
        return self.acknowledged is None or not self.acknowledged.lost

    def _recorded(self) -> LoadRecorder:
        self._recorder.add(self._observations.take())
        return self._recorder

    def _cpu_percent(self) -> float:
        """Return the CPU time since the start, in per cent of a core."""
        elapsed_s = (self._ended_at or time.time()) - self._started_at
        return 100 * (time.process_time() - self._cpu_from) / max(1e-3, elapsed_s)

    def _start(self, **_: Any) -> None:
        # Each test that the web page starts is a separate run.
        options = _options(self._environment)
        if not isinstance(self._environment.runner, WorkerRunner):
            # Locust sends the master's options to the workers.
            setattr(options, _STARTED_AT, time.time())
            # The web page can change the host.
            _Process.requests.address(self._environment.host or "", _Process.target.headers)
        self._reset(float(getattr(options, _STARTED_AT)))

    def _reset(self, started_at: float) -> None:
        # Another machine's clock may be slightly behind.
        elapsed_s = max(0.0, time.time() - started_at)
        self._start_ns = time.monotonic_ns() - int(elapsed_s * _NS_PER_S)
        self._observations = Observations(self._start_ns)
        self._recorder = LoadRecorder(_LATE_AFTER_MS)
        self._started_at = started_at
        self._ended_at: float | None = None
        self._latest_s = 0.0
        self._cpu_from = time.process_time()
        self._workers: dict[str, float] = {}

    def _stop(self, **_: Any) -> None:
        self._ended_at = time.time()

    def _record(self, outcome: Outcome) -> None:
        self._observations.record(outcome)
        intended_s = (outcome.intended_ns - self._start_ns) / _NS_PER_S
        self._latest_s = max(self._latest_s, intended_s)
        latency_ms = (outcome.end_ns - outcome.intended_ns) / _NS_PER_MS
        self._environment.events.request.fire(
            request_type="POST",
            name=outcome.request.kind,
            response_time=latency_ms,
            response_length=outcome.size,
            exception=_exception(outcome),
            context={},
            response=None,
            start_time=time.time() - latency_ms / 1000,
            url=outcome.request.path,
        )

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        data[_REPORT] = {
            "block": self._observations.take().to_json(),
            "cpu_percent": self._cpu_percent(),
            "latest_s": self._latest_s,
            # All so far: a report replaces the last one.
            "kept": _Process.kept(),
        }

    def _receive(self, client_id: str, data: Mapping[str, Any], **_: Any) -> None:
        report = data.get(_REPORT)
        if report is None:
            return
        self._recorder.add(Block.from_json(report["block"]))
        self._workers[client_id] = report["cpu_percent"]
        self._latest_s = max(self._latest_s, report["latest_s"])
        self._kept.add(Kept(**report["kept"]))


def _exception(outcome: Outcome) -> Exception | None:
    if outcome.result in {RIGHT, FALLBACK}:
        return None
    if outcome.result == DROPPED:
        return Dropped(f"more than {_MAX_IN_FLIGHT} requests are in flight")
    if outcome.status and outcome.status != outcome.request.expected:
        return Failed(f"status {outcome.status}, not {outcome.request.expected}")
    return Failed(outcome.result)


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add_options(parser)


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    _Process.measurement = _Measurement(environment)
    if isinstance(environment.runner, WorkerRunner):
        # The master's options arrive with the start of the test.
        environment.events.test_start.add_listener(_draw_for_master)
        return
    with _exit_on_error():
        _choose_users(environment)
        _draw(environment)
        _check_server()


def _draw_for_master(environment: Environment, **_: Any) -> None:
    with _exit_on_error():
        # In a thread: the master gives up on a worker that is silent for three seconds.
        get_hub().threadpool.apply(_draw, (environment,))


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """End the process with one sentence if there is nothing to test."""
    try:
        yield
    except (NewshelfError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(_NOT_TESTED) from None


@events.spawning_complete.add_listener
def _count_users(user_count: int, **_: Any) -> None:
    _Process.users = user_count


@events.quitting.add_listener
def _verdict(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    options = _options(environment)
    is_kept = _Process.measurement.find_acknowledged()
    if options.record:
        _Process.measurement.write(
            Path(options.record),
            is_open=_runs(environment, OpenLoop),
            settings={
                **{name: getattr(options, name) for name in ("via", "rate", "seed", "mix")},
                "cold_share": options.cold_share,
                "bad_share": options.bad_share,
                "users": environment.runner.target_user_count if environment.runner else 0,
            },
        )
    total = environment.stats.total
    p99_ms = _Process.measurement.percentile_ms(99)
    slow = options.p99_ms is not None and options.p99_ms < p99_ms < math.inf
    if slow:
        print(f"p99 is {p99_ms:.1f} ms; the limit is at most {options.p99_ms:g} ms")
    if total.num_failures or not total.num_requests or slow or not is_kept:
        environment.process_exit_code = _FAILED


def _choose_users(environment: Environment) -> None:
    """Keep the users that were named, or the default."""
    options = _options(environment)
    if not options.user_classes and not options.class_picker:
        environment.user_classes[:] = [OpenLoop if options.rate else Mix]
    if options.via == "gateway" and _kinds(environment):
        raise ValueError("these users send requests to the models; give --via torchserve")
    if _runs(environment, OpenLoop) and not options.class_picker:
        if not options.rate or options.rate <= 0:
            raise ValueError("OpenLoop needs a --rate above 0, in requests/s")
        if len(environment.user_classes) > 1:
            raise ValueError("OpenLoop runs alone: other users would take a share of its rate")


def _draw(environment: Environment) -> None:
    """Find the server and draw the requests."""
    options = _options(environment)
    target = locust_target(options, environment.host)
    environment.host = target.url
    # Locust sends the master's options to the workers, which may run on other machines.
    options.token, options.catalog = target.token, str(target.catalog)
    _Process.target = target
    _Process.requests = _Requests(environment, target)


def _check_server() -> None:
    """Report before the run what would fail each time."""
    requests = _Process.requests
    check_server(
        _Process.target.url,
        _Process.target.headers,
        [request for drawn in requests.drawn.values() for request in drawn],
        number=next(requests.numbers),
        timeout_s=_TIMEOUT_S,
    )


def _kinds(environment: Environment) -> set[Kind]:
    return {kind for user in environment.user_classes for kind in getattr(user, "kinds", ())}


def _runs(environment: Environment, user: type[_User]) -> bool:
    return user in environment.user_classes


def _options(environment: Environment) -> Namespace:
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("start this file with the locust command, which parses its options")
    return options
