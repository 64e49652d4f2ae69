"""A load test: starts the processes of the engine, sums up what they saw and checks them."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loadtest.acknowledged import GatewayStore
from loadtest.record import RunRecord
from loadtest.recorder import Block, LoadProgress, LoadRecorder
from loadtest.scenarios import LoadPlan, plan_to_json
from loadtest.shoppers import Kept
from loadtest.traffic import ShopTraffic
from newshelf.errors import CatalogError, ServerError, SettingsError, SetupError
from newshelf.pipeline.workspace import ROOT

_PROGRAM = "loadtest.generator"
_REFUSALS: dict[str, type[SetupError]] = {
    kind.code: kind for kind in (CatalogError, ServerError, SettingsError)
}
_MAX_REASON = 2000
_EXITED = "exited"
_NS_PER_S = 1_000_000_000
_LEAD_S = 0.2
"""Until the last process has read the start time."""


def run_load(
    plan: LoadPlan,
    *,
    command: str,
    progress: Callable[[LoadProgress], None] | None = None,
    started: Callable[[float], None] | None = None,
) -> RunRecord:
    """Run a load test and wait for its last response.

    Ctrl-C ends it early: the record holds what was measured until then, and its settings say
    ``interrupted``.

    ``started`` is called before the warm-up, with the time of ``time.monotonic`` at which the
    measurement starts; ``progress`` about once a second.

    Raises:
        CatalogError: the catalogue lacks what the traffic needs.
        ServerError: no server listens, it refuses the token, a good request fails, or a
            process of the load test fails.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    via_gateway = isinstance(plan.traffic, ShopTraffic)
    store = GatewayStore(plan.url, plan.headers) if via_gateway else None
    with ExitStack() as stack:
        processes = _Processes(plan, stack)
        models = processes.ready()
        if store is not None:
            store.check_access("loadtest")
        start_ns = time.monotonic_ns() + int((_LEAD_S + plan.warm_up_s) * _NS_PER_S)
        started_at = datetime.now(UTC) + timedelta(seconds=_LEAD_S + plan.warm_up_s)
        processes.start(start_ns)
        if started is not None:
            started(start_ns / _NS_PER_S)
        run = _Run(plan, start_ns, progress)
        try:
            run.listen(processes)
        except KeyboardInterrupt:
            run.stop(processes)
    acknowledged = store.find(run.kept) if store is not None else None
    return RunRecord(
        scenario=plan.scenario or plan.shape.name,
        loop=plan.loop,
        command=command,
        started_at=started_at,
        url=plan.url,
        models=models,
        seconds=run.seconds,
        settings={**plan.settings(), **({"interrupted": True} if run.interrupted else {})},
        load=run.recorder.load(),
        generator=run.recorder.generator(run.cpu_percent, run.seconds),
        acknowledged=acknowledged,
    )


@dataclass
class _Run:
    """State of a run in progress."""

    plan: LoadPlan
    start_ns: int
    progress: Callable[[LoadProgress], None] | None
    seconds: float = 0.0
    interrupted: bool = False
    cpu_percent: list[float] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)
    unfinished_from: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seconds = self.plan.seconds
        self.recorder = LoadRecorder(self.plan.late_after_ms)

    def listen(self, processes: "_Processes") -> None:
        """Record messages until all processes are done."""
        for message in processes.messages():
            if message.about == "done":
                self.cpu_percent.append(message.content["cpu_percent"])
                self.kept.add(Kept(**message.content["kept"]))
                continue
            self.recorder.add(Block.from_json(message.content))
            self.unfinished_from[message.stream] = message.content["unfinished_from"]
            if len(self.unfinished_from) == self.plan.processes:
                self.recorder.close(min(self.unfinished_from.values()))
            if self.progress is not None:
                self.progress(self.recorder.progress(self._now_s(), self.plan.seconds))

    def stop(self, processes: "_Processes") -> None:
        """End the run early and record what there is."""
        self.seconds = min(self._now_s(), self.plan.seconds)
        if self.seconds <= 0:
            raise KeyboardInterrupt
        self.interrupted = True
        processes.stop()
        self.listen(processes)

    def _now_s(self) -> float:
        return (time.monotonic_ns() - self.start_ns) / _NS_PER_S


@dataclass(frozen=True)
class _Message:
    """A line of a process; see ``loadtest.generator``."""

    stream: int
    about: str
    content: dict[str, Any]


class _Processes:
    """The processes of a plan, which end with ``stack``."""

    def __init__(self, plan: LoadPlan, stack: ExitStack) -> None:
        self._plan = plan
        self._stack = stack
        self._errors = Path(stack.enter_context(TemporaryDirectory(prefix="newshelf-load-")))
        self._processes: list[subprocess.Popen[str]] = []
        self._messages: queue.Queue[_Message] = queue.Queue()
        for stream in range(plan.processes):
            self._start(stream)

    def ready(self) -> dict[str, str]:
        """Wait until all are ready; return the versions of the models.

        Raises:
            SetupError: one refuses: a CatalogError, ServerError or SettingsError.
        """
        models: dict[str, str] = {}
        for _ in self._processes:
            message = self._next()
            if message.about == "refused":
                kind = _REFUSALS.get(message.content["code"], SetupError)
                raise kind(message.content["message"])
            models |= message.content["models"]
        return models

    def start(self, start_ns: int) -> None:
        """Start all; the measurement starts at this time of ``time.monotonic_ns``."""
        self._write_all(str(start_ns))

    def stop(self) -> None:
        """Let all send no more requests and report."""
        self._write_all("stop")

    def messages(self) -> Iterator[_Message]:
        """Yield messages until all are done."""
        running = len(self._processes)
        while running:
            message = self._next()
            running -= message.about == "done"
            yield message

    def _start(self, stream: int) -> None:
        with self._errors_of(stream).open("w") as errors:
            process = self._stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", _PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    text=True,
                )
            )
        self._processes.append(process)
        listener = threading.Thread(target=self._listen, args=(stream, process), daemon=True)
        listener.start()
        # The stack kills the process first; its output then ends.
        self._stack.callback(listener.join)
        self._stack.callback(process.kill)
        # On standard input: the headers hold a token, which must not appear in a process list.
        _write(process, json.dumps({"plan": plan_to_json(self._plan), "stream": stream}))

    def _listen(self, stream: int, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            ((about, content),) = json.loads(line).items()
            self._messages.put(_Message(stream, about, content))
        self._messages.put(_Message(stream, _EXITED, {}))

    def _next(self) -> _Message:
        while True:
            message = self._messages.get()
            if message.about != _EXITED:
                return message
            if self._processes[message.stream].wait():
                reason = self._errors_of(message.stream).read_text()[-_MAX_REASON:].strip()
                raise ServerError(f"{_PROGRAM} failed: {reason}")

    def _errors_of(self, stream: int) -> Path:
        return self._errors / f"{stream}.txt"

    def _write_all(self, line: str) -> None:
        for process in self._processes:
            _write(process, line)


def _write(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is None:
        raise RuntimeError("the process's input was not piped")
    # If it has exited, its exit code is checked elsewhere.
    with suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()
