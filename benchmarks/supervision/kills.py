"""Kills each process of a running server in turn, under load, and measures what shoppers notice."""

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from rich.console import Console

from benchmarks.processes import in_threads
from newshelf.errors import ServerError
from newshelf.files import read_model
from newshelf.pipeline.workspace import only_server
from newshelf.report.page import ReportTable, print_table
from newshelf.server.process import is_running
from newshelf.server.program import ControllerPlan
from newshelf.server.state import GATEWAY, TORCHSERVE, ServerState
from newshelf.store.store import EventStore

_THREADS = 64
_POLL_S = 0.05
_REST_S = 2.0
_PATIENCE_S = 120.0
_GOAL_S, _TORCHSERVE_GOAL_S = 5.0, 15.0
_TIMEOUT_S = 30.0


@dataclass
class Load:
    """Recommendations at a fixed rate, and a click on the first product of each answer."""

    url: str
    key: str
    sources: Counter[str] = field(default_factory=Counter)
    """Answers, by their source; ``failed`` has no answer, or one of 5xx."""
    again: Counter[str] = field(default_factory=Counter)
    """The same for the one repetition of a request whose connection was lost."""
    answered: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    waits_s: list[float] = field(default_factory=list)
    """Time from when a request was due until its answer."""

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=_THREADS, max_keepalive_connections=_THREADS)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=_TIMEOUT_S,
            limits=limits,
            trust_env=False,
        )

    @contextmanager
    def running(self, per_second: float) -> Iterator[None]:
        """Send requests while the block runs."""

        def send(_: int, ended: threading.Event) -> None:
            due_s = time.monotonic()
            while not ended.wait(max(0.0, due_s - time.monotonic())):
                pool.submit(self._shop, due_s)
                due_s += 1 / per_second

        with ThreadPoolExecutor(_THREADS) as pool, in_threads(send):
            yield
        self._http.close()

    def _shop(self, due_s: float) -> None:
        unit = f"bench-{uuid.uuid4().hex[:6]}"
        answer = self._post("/v1/recommend", {"unit": unit, "k": 5}, self.sources)
        if answer is None:
            answer = self._post("/v1/recommend", {"unit": unit, "k": 5}, self.again)
        if answer is None:
            return
        self.waits_s.append(time.monotonic() - due_s)
        self.answered.add(answer["request_id"])
        event = {
            "event_id": f"{unit}-{answer['request_id']}",
            "event_type": "click",
            "item_id": answer["items"][0]["id"],
            "request_id": answer["request_id"],
        }
        counted: Counter[str] = Counter()
        if self._post("/v1/feedback", event, counted) is not None:
            self.acknowledged.add(event["event_id"])

    def _post(self, path: str, body: object, outcomes: Counter[str]) -> dict[str, Any] | None:
        try:
            response = self._http.post(path, json=body)
        except httpx.TransportError:
            outcomes["failed"] += 1
            return None
        if response.status_code != httpx.codes.OK:
            outcomes["failed"] += 1
            return None
        answer: dict[str, Any] = response.json()
        outcomes[str(answer.get("source"))] += 1
        return answer


def _back(state: ServerState, url: str, name: str, killed: int) -> bool:
    """Return whether the process has a successor that shows that it works."""
    now = state.current()
    ref = now.processes.get(name)
    if ref is None or ref.pid == killed or not is_running(ref):
        return False
    if name != TORCHSERVE:
        service = now.services.get(name)
        return service is not None and service.heartbeat.exists()
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz?strict", trust_env=False, timeout=5).is_success
    return False


def kill_in_turn(
    state: ServerState, url: str, rounds: int, log: Console
) -> tuple[dict[str, list[float]], int]:
    """Kill each process ``rounds`` times; return the seconds until it was back, and the kills."""
    spent: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in sorted(state.current().processes):
            while (ref := state.current().processes.get(name)) is None:
                time.sleep(_POLL_S)
            begun_s = time.monotonic()
            os.kill(ref.pid, signal.SIGKILL)
            while not _back(state, url, name, ref.pid):
                if time.monotonic() - begun_s > _PATIENCE_S:
                    raise ServerError(f"{name} did not come back; see {state.directory}")
                time.sleep(_POLL_S)
            spent.setdefault(name, []).append(time.monotonic() - begun_s)
            log.print(f"round {number + 1}: {name} is back after {spent[name][-1]:.1f} s")
            time.sleep(_REST_S)
    return spent, sum(map(len, spent.values()))


def run(
    catalog: Path | None,
    workspace: Path | None,
    *,
    rounds: int,
    per_second: float,
    console: Console,
) -> bool:
    """Print what was measured on the running server; return whether all goals were reached."""
    state = only_server(catalog, workspace)
    if state.gateway is None:
        raise ServerError("the server has no gateway (gateway.enabled)")
    root = state.directory.parent
    key = (root / GATEWAY / "local.key").read_text(encoding="ascii").strip()
    load = Load(state.gateway.url, key)
    begun_s = time.monotonic()
    with load.running(per_second):
        time.sleep(_REST_S)
        spent, kills = kill_in_turn(state, load.url, rounds, console)
    took_s = time.monotonic() - begun_s
    plan = read_model(root / "rollout" / "controller.json", ControllerPlan, "plan")
    with EventStore.open(plan.store_url) as store:
        time.sleep(_REST_S)
        exposures = {one.request_id for one in store.exposures()}
        events = {one.event_id for one in store.feedback()}
    rows, reached = [], True
    for name, seconds in spent.items():
        goal_s = _TORCHSERVE_GOAL_S if name == TORCHSERVE else _GOAL_S
        reached &= max(seconds) <= goal_s
        times = (f"{median(seconds):.1f}", f"{max(seconds):.1f}", f"{goal_s:g}")
        rows.append((name, str(len(seconds)), *times))
    header = ("process", "kills", "back after, median s", "longest", "goal")
    print_table(ReportTable("Processes killed under load", header, rows), console)
    waits_s = sorted(load.waits_s)
    lost = len(load.answered - exposures), len(load.acknowledged - events)
    failed = load.sources["failed"]
    console.print(
        f"{kills} kills in {took_s:.0f} s; {load.sources.total()} requests: "
        f"{load.sources['model']} by the model, {load.sources['fallback']} by the fallback, "
        f"{failed} lost with a killed process, of which {failed - load.again['failed']} were "
        f"answered when sent again; longest wait {waits_s[-1]:.1f} s, "
        f"p99 {waits_s[int(0.99 * len(waits_s))] * 1000:.0f} ms; {len(load.acknowledged)} events "
        f"acknowledged; lost: {lost[0]} answers' records, {lost[1]} events"
    )
    return reached and not any(lost) and not load.again["failed"]
