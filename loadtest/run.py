"""Runs a load test: starts the generators, sums up what they saw, and says what limited it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from loadtest.children import Children
from loadtest.limited import why_limited
from loadtest.observed import Block
from loadtest.plan import LoadPlan
from loadtest.record import Generator, RunRecord, encoded
from loadtest.recorder import Progress, Recorder

__all__ = ["LoadPlan", "Progress", "run_load"]

_NS_PER_S = 1_000_000_000
_LEAD_S = 0.2
"""Until the last process has heard of the start."""


def run_load(
    plan: LoadPlan,
    *,
    command: str,
    progress: Callable[[Progress], None] | None = None,
    started: Callable[[float], None] | None = None,
) -> RunRecord:
    """Run a load test and wait for its last answer.

    Ctrl-C ends it early: what was measured until then is the record, whose settings say
    ``interrupted``.

    Args:
        plan: what to do.
        command: how to repeat it, for the record.
        progress: told how far it is, about once a second.
        started: told, before the warm-up, the moment of ``time.monotonic`` at which what is
            measured begins.

    Returns:
        What the load's side saw; ``server`` is empty.

    Raises:
        CatalogError: the catalogue has not what the traffic needs.
        ServerError: nobody listens, the token is refused, a good request is not answered, or
            a generator failed.
        KeyboardInterrupt: ended before anything was measured.
    """
    with Children(plan) as children:
        models = children.ready()
        start_ns = time.monotonic_ns() + int((_LEAD_S + plan.warm_up_s) * _NS_PER_S)
        started_at = datetime.now(UTC) + timedelta(seconds=_LEAD_S + plan.warm_up_s)
        children.start(start_ns)
        if started is not None:
            started(start_ns / _NS_PER_S)
        run = _Run(plan, start_ns, progress)
        try:
            run.listen(children)
        except KeyboardInterrupt:
            run.stop(children)
    seconds = run.seconds
    return RunRecord(
        scenario=plan.scenario or plan.shape.name,
        loop=plan.loop,
        command=command,
        started_at=started_at,
        url=plan.url,
        models=models,
        seconds=seconds,
        settings={**plan.settings(), **({"interrupted": True} if run.interrupted else {})},
        load=run.recorder.load(),
        generator=run.generator(),
    )


@dataclass
class _Run:
    """What is known of a run while it goes on."""

    plan: LoadPlan
    start_ns: int
    progress: Callable[[Progress], None] | None
    seconds: float = 0.0
    interrupted: bool = False
    cpu_percent: list[float] = field(default_factory=list)
    unfinished_from: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seconds = self.plan.seconds
        self.recorder = Recorder(self.plan.late_after_ms)

    def listen(self, children: Children) -> None:
        """Take what they say until they are done."""
        for message in children.messages():
            if message.about == "done":
                self.cpu_percent.append(message.content["cpu_percent"])
                continue
            self.recorder.add(Block.from_json(message.content))
            self.unfinished_from[message.stream] = message.content["unfinished_from"]
            if len(self.unfinished_from) == self.plan.processes:
                self.recorder.close(min(self.unfinished_from.values()))
            if self.progress is not None:
                self.progress(self.recorder.progress(self._now_s(), self.plan.seconds))

    def stop(self, children: Children) -> None:
        """End it early and take what there is."""
        self.seconds = min(self._now_s(), self.plan.seconds)
        if self.seconds <= 0:
            raise KeyboardInterrupt
        self.interrupted = True
        children.stop()
        self.listen(children)

    def generator(self) -> Generator:
        """The load's own side."""
        lateness = self.recorder.lateness
        busiest = max(self.cpu_percent)
        return Generator(
            processes=self.plan.processes,
            cpu_percent=busiest,
            lateness=encoded(lateness),
            limited=why_limited(
                cpu_percent=busiest,
                lateness=lateness,
                late_after_ms=self.plan.late_after_ms,
                sent_in_time=self.recorder.sent_in_time(self.seconds),
            ),
        )

    def _now_s(self) -> float:
        return (time.monotonic_ns() - self.start_ns) / _NS_PER_S
