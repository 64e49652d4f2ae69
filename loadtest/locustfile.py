"""Locust's users: ``locust -f loadtest/locustfile.py``, see ``loadtest/README.md``.

Named on the command line, ``Encoder``, ``Recommender``, ``Mix`` or ``OpenLoop`` run; without a
name it is ``Mix``, or ``OpenLoop`` when a ``--rate`` is given. The exit code is 2 when there is
nothing to test, and 1 when a request failed or a limit was not kept.
"""

import random
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from gevent import get_hub, sleep
from gevent.pool import Pool
from locust import FastHttpUser, between, constant, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtest.http_client import check_server
from loadtest.locust_options import Target, add_options, find_target, traffic_of
from loadtest.locust_requests import Requests
from loadtest.locust_watch import Dropped, Watch
from loadtest.requests import Rendered
from loadtest.traffic import Kind
from newshelf.errors import NewshelfError

_TIMEOUT_S = 30.0
_MOST_IN_FLIGHT = 1000
_NOT_TESTED, _FAILED = 2, 1


class _Process:
    """What all users of this process share; a locustfile's module is its only place."""

    target: Target
    requests: Requests
    watch: Watch
    users = 0
    """That run, in all processes together."""


class _User(FastHttpUser):
    abstract = True
    network_timeout = connection_timeout = _TIMEOUT_S
    kinds: tuple[Kind, ...] = ()
    """That it asks for by name."""

    def on_start(self) -> None:
        """Carry the token."""
        self.headers = _Process.target.headers()

    def ask(self, kind: Kind) -> None:
        """Send a request of this kind and wait for the answer."""
        self.send(_Process.requests.of(kind))

    def send(self, request: Rendered, intended: float | None = None) -> None:
        """Send it; the answer is right when its status is the one that the request deserves.

        Args:
            request: what is sent.
            intended: by ``time.perf_counter``, the moment from which latency counts; None is
                now.
        """
        headers = {**self.headers, "Content-Type": request.content_type}
        # Typed as text in Locust, which hands it on as it is.
        body = cast(str, request.body(_Process.requests.number()))
        late_ms = 0.0 if intended is None else 1000 * (time.perf_counter() - intended)
        with self.client.post(
            request.path, data=body, name=request.kind, headers=headers, catch_response=True
        ) as response:
            meta = response.request_meta
            service_ms = meta["response_time"]
            meta["response_time"] = service_ms + late_ms
            meta["start_time"] -= late_ms / 1000
            meta["context"] = {"service_ms": service_ms, "lateness_ms": late_ms}
            if response.status_code == request.expected:
                response.success()
            elif response.status_code:
                response.failure(f"answered {response.status_code}, not {request.expected}")


class Encoder(_User):
    """A shop that puts up products."""

    kinds = ("encode picture", "encode text", "encode both")
    wait_time = between(0.05, 0.2)

    @tag("picture")
    @task(1)
    def picture(self) -> None:
        """Bare or in a form."""
        self.ask("encode picture")

    @tag("text")
    @task(1)
    def text(self) -> None:
        """As JSON."""
        self.ask("encode text")

    @tag("both")
    @task(2)
    def both(self) -> None:
        """As JSON or in a form."""
        self.ask("encode both")


class Recommender(_User):
    """Shoppers."""

    kinds = ("recommend history", "recommend unseen", "recommend candidates")
    wait_time = between(0.05, 0.2)

    @tag("history")
    @task(10)
    def history(self) -> None:
        """From ids of the index: no tower runs."""
        self.ask("recommend history")

    @tag("unseen")
    @task(1)
    def unseen(self) -> None:
        """From a product sent with the request: all towers run."""
        self.ask("recommend unseen")

    @tag("candidates")
    @task(2)
    def candidates(self) -> None:
        """Only what is named is ranked."""
        self.ask("recommend candidates")


class Mix(_User):
    """Shoppers and shop, in the shares of ``--mix``, ``--cold-share`` and ``--bad-share``."""

    wait_time = between(0.05, 0.2)

    @task
    def next_request(self) -> None:
        """Whatever comes next."""
        self.send(_Process.requests.of_mix())


class OpenLoop(_User):
    """Poisson arrivals of ``--rate`` in all, which wait for no answer.

    The arrivals of so many users with an equal part of the rate each are those of one with all
    of it. Latency counts from the moment at which a request was meant to start.
    """

    wait_time = constant(0)
    concurrency = _MOST_IN_FLIGHT

    def on_start(self) -> None:
        """Begin an endless row of arrivals."""
        super().on_start()
        self.random = random.Random()  # noqa: S311 - no secret
        self.under_way = Pool(_MOST_IN_FLIGHT)
        self.next_at = time.perf_counter()

    @task
    def arrival(self) -> None:
        """Wait for the next arrival and let it go its way."""
        if not _Process.users:
            # Part of what is not known while users are still being added.
            sleep(0.05)
            self.next_at = time.perf_counter()
            return
        rate = _options(self.environment).rate / _Process.users
        self.next_at += self.random.expovariate(rate)
        while (left_s := self.next_at - time.perf_counter()) > 0:
            sleep(left_s)
        request = _Process.requests.of_mix()
        if self.under_way.free_count():
            self.under_way.spawn(self.send, request, self.next_at)
            # It is sent before the next one is waited for.
            sleep(0)
        else:
            self._drop(request)

    def on_stop(self) -> None:
        """Wait for the answers to what was sent."""
        self.under_way.join(timeout=_TIMEOUT_S)

    def _drop(self, request: Rendered) -> None:
        self.environment.events.request.fire(
            request_type="POST",
            name=request.kind,
            response_time=0.0,
            response_length=0,
            exception=Dropped(f"more than {_MOST_IN_FLIGHT} requests are under way"),
            context={},
            response=None,
            start_time=time.time(),
            url=request.path,
        )


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add_options(parser)


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    _Process.watch = Watch(environment)
    if isinstance(environment.runner, WorkerRunner):
        # What to do comes from the master with the start of the test.
        environment.events.test_start.add_listener(_draw_for_master)
        return
    with _one_sentence():
        _choose_users(environment)
        _draw(environment)
        _look()


def _draw_for_master(environment: Environment, **_: Any) -> None:
    with _one_sentence():
        # In a thread: a worker that is silent for three seconds is given up by the master.
        get_hub().threadpool.apply(_draw, (environment,))


@contextmanager
def _one_sentence() -> Iterator[None]:
    """End the process when there is nothing to test, and say why."""
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
    if options.record:
        _Process.watch.write(
            Path(options.record),
            is_open=_runs(environment, OpenLoop),
            settings={
                **{name: getattr(options, name) for name in ("rate", "seed", "mix")},
                "cold_share": options.cold_share,
                "bad_share": options.bad_share,
                "users": environment.runner.target_user_count if environment.runner else 0,
            },
        )
    total = environment.stats.total
    p99_ms = _Process.watch.percentile_ms(99)
    slow = options.p99_ms is not None and p99_ms is not None and p99_ms > options.p99_ms
    if slow:
        print(f"p99 is {p99_ms:.1f} ms; at most {options.p99_ms:g} ms were asked for")
    if total.num_failures or not total.num_requests or slow:
        environment.process_exit_code = _FAILED


def _choose_users(environment: Environment) -> None:
    """Leave the users that were named, or the one that the options mean."""
    options = _options(environment)
    if not options.user_classes and not options.class_picker:
        environment.user_classes[:] = [OpenLoop if options.rate else Mix]
    if _runs(environment, OpenLoop) and not options.class_picker:
        if not options.rate or options.rate <= 0:
            raise ValueError("OpenLoop needs a --rate above 0, in requests/s")
        if len(environment.user_classes) > 1:
            raise ValueError("OpenLoop runs alone: other users would take a part of its rate")


def _draw(environment: Environment) -> None:
    """Find the server and put the requests together."""
    options = _options(environment)
    target = find_target(options, environment.host)
    environment.host = target.url
    # The master sends its options to the workers, which may run elsewhere.
    options.token, options.catalog = target.token, str(target.catalog)
    runner = environment.runner
    index = runner.worker_index + 1 if isinstance(runner, WorkerRunner) else 0
    _Process.target = target
    _Process.requests = Requests(
        target.catalog,
        traffic_of(options),
        (options.seed, index),
        {kind for user in environment.user_classes for kind in getattr(user, "kinds", ())},
        mixed=_runs(environment, Mix) or _runs(environment, OpenLoop),
    )


def _look() -> None:
    """Say before any load what would fail every time."""
    requests = _Process.requests
    check_server(
        _Process.target.url,
        _Process.target.headers(),
        requests.samples,
        number=requests.number(),
        timeout_s=_TIMEOUT_S,
    )


def _runs(environment: Environment, user: type[_User]) -> bool:
    return user in environment.user_classes


def _options(environment: Environment) -> Namespace:
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("start this file with the locust command, which parses its options")
    return options
