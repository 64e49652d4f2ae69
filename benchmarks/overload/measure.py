"""Loads of several times a server's capacity, through the proxy and the gateway."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import numpy as np

from benchmarks.overload.command import OverloadContext
from benchmarks.overload.proxy import Proxy, running_proxy
from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from loadtest.engine import Sender, closed_loop, fresh_numbers, open_loop
from loadtest.http_client import HttpConnection, with_head
from loadtest.pool import NewProducts
from loadtest.record import empty_histogram
from loadtest.recorder import FALLBACK, RIGHT, Outcome, why_limited
from loadtest.requests import Rendered, as_json, fresh_image, fresh_text
from loadtest.scenarios import Steady, poisson_arrivals
from loadtest.slo import SloSet, read_slo
from loadtest.traffic import KINDS
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.gateway.keys import KeyFile
from newshelf.pipeline.workspace import ROOT
from newshelf.server.state import GATEWAY

TIMES = (0.5, 1.0, 3.0)
"""Loads, as multiples of the capacity."""
_CLIENTS = 8
_WARM_UP_S = 5.0
_ADDRESSES = 16
"""The proxy limits each address to 200 requests/s."""
_PREPARED = 512
_HISTORY, _K = 5, 10
_MIX = {"recommend": 0.3, "recommend unseen": 0.3, "search": 0.2, "encode": 0.2}
_FEEDBACK = 0.2
"""Clicks per answer."""
_REFUSED = {"429", "503"}
_GOAL_MS = 50.0
_GOODPUT = 0.9
_TIMEOUT_S = 30.0
_LATE_MS = 10.0
_MAX_IN_FLIGHT = 4_000
_NS_PER_S, _NS_PER_MS, _NS_PER_US = 1_000_000_000, 1_000_000, 1_000
_SEED = 7


@dataclass(frozen=True)
class Measured:
    """Outcomes of the requests of one load."""

    rate: float
    """Offered requests per second."""
    seconds: float
    outcomes: Sequence[Outcome]
    limited: str = ""
    """Why the generator was the limit; empty if it was not."""
    cpu_percent: float = 0.0
    """Of one core, by the generator."""

    def of(self, kind: str | None = None) -> list[Outcome]:
        """Return the outcomes of one kind, or all."""
        return [one for one in self.outcomes if kind in (None, one.request.kind)]

    def kinds(self) -> list[str]:
        """Return the kinds of request, sorted."""
        return sorted({one.request.kind for one in self.outcomes})

    def accepted_per_s(self) -> float:
        """Return the right answers per second that are not the fallback's."""
        return len(accepted(self.outcomes)) / self.seconds


def accepted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that a model, or, for feedback, the event store answered."""
    return [one for one in outcomes if one.result == RIGHT]


def by_fallback(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that the fallback answered."""
    return [one for one in outcomes if one.result == FALLBACK]


def refused(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that were refused with 503 or 429."""
    return [one for one in outcomes if one.result in _REFUSED]


def percentile_ms(outcomes: Sequence[Outcome], percent: float) -> float | None:
    """Return the percentile of the times from intended start to last byte; None without any."""
    if not outcomes:
        return None
    waits = [one.end_ns - one.intended_ns for one in outcomes]
    return float(np.percentile(waits, percent)) / _NS_PER_MS


class Shoppers(Iterator[Rendered]):
    """Requests in random order; answers to them bring the clicks that are sent in between."""

    def __init__(self, catalog: Catalog, url: str, key: str) -> None:
        self._random = np.random.default_rng(_SEED)
        self._url, self._headers = url, {"Authorization": f"Bearer {key}"}
        self._clicks: list[Rendered] = []
        self._numbers = count()
        products = NewProducts(catalog, (), self._random)
        ids = [str(one) for one in catalog.items["id"]]
        kinds = self._random.choice(list(_MIX), _PREPARED, p=list(_MIX.values()))
        self._prepared = cycle([self._rendered(kind, products, ids) for kind in kinds])

    def __next__(self) -> Rendered:
        return self._clicks.pop() if self._clicks else next(self._prepared)

    def _rendered(self, kind: str, products: NewProducts, ids: Sequence[str]) -> Rendered:
        body: dict[str, Any] = {"k": _K}
        new = products.draw("both")
        title = str(new.fields.get("title", ""))
        unseen: dict[str, Any] = {"title": title}
        if new.image is not None:
            # A fresh title, too, would be a second number in the body.
            unseen["image"] = fresh_image(new.image)
        path, check = f"/v1/{kind.partition(' ')[0]}", self._see
        if kind == "encode":
            return self._headed(as_json(kind, path, unseen))
        body["unit"] = f"overload-{self._random.integers(_PREPARED)}"
        if kind == "search":
            body["text"] = fresh_text(" ".join(title.split()[:3]))
        else:
            chosen = self._random.choice(ids, _HISTORY, replace=False).tolist()
            body["history"] = [*chosen, *([unseen] if kind == "recommend unseen" else [])]
        return self._headed(replace(as_json(kind, path, body), check=check))

    def _headed(self, request: Rendered) -> Rendered:
        return with_head(request, self._url, self._headers)

    def _see(self, body: bytes) -> str:
        answer = json.loads(body)
        if answer["items"] and self._random.random() < _FEEDBACK:
            event = {
                "event_id": f"overload-{answer['request_id']}-{next(self._numbers)}",
                "event_type": "click",
                "item_id": answer["items"][0]["id"],
                "request_id": answer["request_id"],
            }
            self._clicks.append(self._headed(as_json("feedback", "/v1/feedback", event)))
        return FALLBACK if answer["source"] == "fallback" else RIGHT


class Load:
    """Sends shoppers' requests over TLS, from several addresses of this machine."""

    def __init__(self, proxy: Proxy, shoppers: Shoppers) -> None:
        self._proxy, self._shoppers = proxy, shoppers
        # gevent.ssl.create_default_context makes contexts whose sockets block the whole process.
        context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(proxy.folder / "tls.crt")
        sources = cycle(f"127.0.0.{number}" for number in range(2, 2 + _ADDRESSES))
        address = ("127.0.0.1", proxy.port)
        self._connect = lambda: HttpConnection(address, source=next(sources), tls=context)
        self._outcomes: list[Outcome] = []
        self._runs = count()

    def closed(self, seconds: float) -> Measured:
        """Return the outcomes of clients that wait for their answers."""
        sender, start_ns = self._sender(), time.monotonic_ns() + int(_WARM_UP_S * _NS_PER_S)
        end_ns = start_ns + int(seconds * _NS_PER_S)
        closed_loop(range(_CLIENTS), lambda _: sender.send(next(self._shoppers)), end_ns=end_ns)
        sender.wait()
        return Measured(0.0, seconds, self._between(start_ns, end_ns))

    def opened(self, rate: float, seconds: float) -> Measured:
        """Return the outcomes of requests that arrive at a rate (Poisson), whatever happens."""
        whole_s = _WARM_UP_S + seconds
        random = np.random.default_rng([_SEED, next(self._runs)])
        arrivals = [*poisson_arrivals(Steady(), rate, whole_s, random)]
        sender, begun_ns = self._sender(), time.monotonic_ns()
        start_ns = begun_ns + int(_WARM_UP_S * _NS_PER_S)
        spent_s = time.process_time()
        open_loop(arrivals, begun_ns, lambda due_ns: sender.offer(next(self._shoppers), due_ns))
        sender.wait()
        taken_s = (time.monotonic_ns() - begun_ns) / _NS_PER_S
        cpu_percent = 100 * (time.process_time() - spent_s) / taken_s
        outcomes = self._between(start_ns, begun_ns + int(whole_s * _NS_PER_S))
        return Measured(rate, seconds, outcomes, _limited(outcomes, cpu_percent), cpu_percent)

    def _sender(self) -> Sender:
        return Sender(
            self._proxy.url,
            self._outcomes.append,
            fresh_numbers(0, 1),
            timeout_s=_TIMEOUT_S,
            max_in_flight=_MAX_IN_FLIGHT,
            connect=self._connect,
        )

    def _between(self, start_ns: int, end_ns: int) -> list[Outcome]:
        taken = [one for one in self._outcomes if start_ns <= one.intended_ns < end_ns]
        self._outcomes.clear()
        return taken


def _limited(outcomes: Sequence[Outcome], cpu_percent: float) -> str:
    lateness = empty_histogram()
    for one in outcomes:
        lateness.record_value(max(1, (one.sent_ns - one.intended_ns) // _NS_PER_US))
    return why_limited(
        cpu_percent=cpu_percent, lateness=lateness, late_after_ms=_LATE_MS, sent_in_time=1.0
    )


def run(context: OverloadContext) -> TaskResult:
    """Find the capacity, then offer multiples of it."""
    before = os.getloadavg()[0]
    with _front_door(context) as (proxy, key):
        shoppers = Shoppers(read_catalog(Path(context.state.catalog)), proxy.url, key)
        load = Load(proxy, shoppers)
        alone = load.closed(context.seconds)
        capacity = alone.accepted_per_s()
        if len(alone.outcomes) > _answered(alone.outcomes):
            raise BenchmarkError(f"not all were answered: {_shares(alone.outcomes)}")
        context.console.print(f"capacity: {capacity:.1f} requests/s")
        found = {}
        for times in TIMES:
            # What an overload has left behind is answered first.
            gevent.sleep(_WARM_UP_S)
            found[times] = load.opened(times * capacity, context.seconds)
            shares = _shares(found[times].outcomes)
            context.console.print(f"{times:g} × {capacity:.1f}/s: {shares}", markup=False)
    limits = read_slo(str(ROOT / "loadtest" / "slo-gateway.yaml"), KINDS)
    return summed_up(alone, found, limits, before)


def summed_up(
    alone: Measured, found: dict[float, Measured], limits: SloSet, load_average: float
) -> TaskResult:
    """Return rows and goals of the largest multiple, and tables of all."""
    capacity, most = alone.accepted_per_s(), max(found)
    measured = found[most]
    of = f"{most:g} × capacity"
    values: dict[str, float | None] = {}
    goals = []
    for kind in measured.kinds():
        limit_ms = _limit_ms(limits, kind)
        for who, chosen in (("accepted", accepted), ("fallback", by_fallback)):
            name = f"{of}, {kind}, {who}: p99, ms"
            values[name] = percentile_ms(chosen(measured.of(kind)), 99)
            if who == "accepted" or values[name] is not None:
                goals.append(Goal(name, limit_ms))
    name = f"{of}, refused: p99, ms"
    values[name] = percentile_ms(refused(measured.outcomes), 99)
    goals += [Goal(name, _GOAL_MS)] if values[name] is not None else []
    lower = [*values]
    share = f"{of}: accepted requests/s, as a share of the capacity"
    values[share] = measured.accepted_per_s() / capacity
    lost = f"{of}: requests without an answer"
    values[lost] = float(len(measured.outcomes) - _answered(measured.outcomes))
    goals += [Goal(share, _GOODPUT), Goal(lost, 0)]
    mix = ", ".join(f"{kind} {weight:.0%}" for kind, weight in _MIX.items())
    return TaskResult(
        task="overload",
        title="More load than capacity",
        protocol=(
            "nginx with `deploy/proxy/nginx.conf`, the gateway and TorchServe of a running "
            f"server; requests over TLS from {_ADDRESSES} addresses: {mix}; and a click for every "
            f"{1 / _FEEDBACK:.0f}th answer. An unseen product is sent whole, with its picture, in "
            "the history; it is encoded, and no cache knows it. The capacity is what "
            f"{_CLIENTS} clients get who wait for their answers, without answers of the fallback: "
            f"{capacity:.1f} requests/s. Then requests arrive at multiples of it (Poisson; they "
            "wait for nothing), and times count from when a request was due. Accepted: answered "
            "by a model, or, for a click, stored; refused: 503 or 429. Limits are those of "
            "`loadtest/slo-gateway.yaml`."
        ),
        rows=[
            Row(name, "Newshelf", [value]) for name, value in values.items() if value is not None
        ],
        goals=goals,
        notes=[
            f"Generator and server share the cores. {_generator(found)} Load average of the "
            f"machine before the run: {load_average:.1f}."
        ],
        details=_table(found),
        percent=False,
        lower_is_better=[*lower, lost],
    )


def _generator(found: dict[float, Measured]) -> str:
    reasons = [f"{times:g} ×: {one.limited}" for times, one in found.items() if one.limited]
    used = ", ".join(f"{one.cpu_percent:.0f} % at {times:g} ×" for times, one in found.items())
    verdict = "; ".join(reasons) or "It was not the limit"
    return f"The generator used {used} of a core. {verdict}."


def _limit_ms(limits: SloSet, kind: str) -> float:
    slo = limits.kinds.get(kind.partition(" ")[0], limits.every)
    return next(one.most_ms for one in slo.latencies if one.percent == 99)  # noqa: PLR2004


def _answered(outcomes: Sequence[Outcome]) -> int:
    return sum(len(of(outcomes)) for of in (accepted, by_fallback, refused))


def _shares(outcomes: Sequence[Outcome]) -> str:
    whole = max(1, len(outcomes))
    results = sorted({one.result for one in outcomes})
    shares = {name: sum(one.result == name for one in outcomes) / whole for name in results}
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _table(found: dict[float, Measured]) -> str:
    header = ("load", "kind", "per second", "accepted", "fallback", "refused", "other",
              "accepted p50 ms", "p99 ms", "fallback p99 ms", "refused p99 ms")  # fmt: skip
    rows = []
    for times, measured in found.items():
        for kind in [*measured.kinds(), None]:
            outcomes = measured.of(kind)
            parts = [of(outcomes) for of in (accepted, by_fallback, refused)]
            other = len(outcomes) - sum(map(len, parts))
            numbers = [*map(len, parts), other]
            rows.append(
                [
                    f"{times:g} ×",
                    kind or "all",
                    f"{len(outcomes) / measured.seconds:.1f}",
                    *(f"{number / len(outcomes):.1%}" for number in numbers),
                    _ms(percentile_ms(parts[0], 50)),
                    *(_ms(percentile_ms(part, 99)) for part in parts),
                ]
            )
    return markdown_table(header, "ll" + "r" * (len(header) - 2), rows)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


@contextmanager
def _front_door(context: OverloadContext) -> Iterator[tuple[Proxy, str]]:
    """Run the proxy in front of the server's gateway, with a key of its own."""
    state = context.state
    if state.gateway is None:
        raise BenchmarkError("the server has no gateway (gateway.enabled)")
    keys = KeyFile(state.directory.parent / GATEWAY / "keys.json")
    now = datetime.now(UTC)
    name = f"overload-{now:%Y%m%d-%H%M%S}"
    key = keys.add(name, now=now, expires=None, rate_per_s=1e6)
    revoke: Callable[[], None] = partial(keys.revoke, name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            address = state.gateway.url.removeprefix("http://")
            with running_proxy(Path(folder), address) as proxy:
                # The gateway looks for new keys once a second.
                gevent.sleep(2.0)
                yield proxy, key
    finally:
        revoke()
