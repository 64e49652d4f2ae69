"""Rows that wait share a commit; callers hear when theirs is done, or that it cannot be."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from newshelf.errors import InvalidField, Unavailable
from newshelf.store.group_commit import GroupCommit
from newshelf.store.records import ShadowAnswer
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.store.helpers import shadow_summary


class Gate:
    """Lets commits through, and counts the rows of each; closed, they wait."""

    def __init__(self, store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[int] = []
        self.failures: list[Exception] = []
        self.entered = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._write = store.write
        monkeypatch.setattr(store, "write", self._pass)

    def _pass(self, writes: WriteBatch) -> list[str]:
        self.groups.append(len(writes.exposures) + len(writes.feedback) + len(writes.shadow))
        self.entered.set()
        self._open.wait()
        if self.failures:
            raise self.failures.pop(0)
        return self._write(writes)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self._open.clear()
        self.entered.clear()
        try:
            yield
        finally:
            self._open.set()


@pytest.fixture
def gate(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(store, monkeypatch)


async def entered(gate: Gate) -> None:
    """Until the writer is within a commit."""
    await asyncio.to_thread(gate.entered.wait)


async def settle() -> None:
    """Until tasks that were made have called."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(main: Callable[[], object]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


def test_an_answer_is_stored_when_the_call_returns(url: str, store: EventStore, exposure) -> None:
    async def main() -> None:
        group = GroupCommit(store)
        with EventStore.open(url) as other:
            for number in range(5):
                await group.exposure(exposure("ring", request_id=str(number)))
                assert sum(1 for _ in other.exposures()) == number + 1
        await group.close()

    run(main)


def test_each_caller_hears_of_its_own_events(store: EventStore, exposure, feedback) -> None:
    async def main() -> None:
        group = GroupCommit(store)
        answers = [exposure("ring", "vase", request_id=str(number)) for number in range(20)]
        await asyncio.gather(*map(group.exposure, answers))
        heard = await asyncio.gather(
            *(
                group.feedback(
                    [
                        feedback("ring", request_id=str(number)),
                        feedback("lamp", request_id=str(number)),
                        feedback("ring", unit="nobody"),
                    ][: number % 4]
                )
                for number in range(20)
            ),
        )
        full = ["stored", "unknown_item", "unjoined"]
        assert heard == [full[: number % 4] for number in range(20)]
        await group.close()

    run(main)
    assert len(list(store.feedback())) == 20


def test_rows_that_arrive_during_a_commit_share_the_next(
    store: EventStore, gate: Gate, exposure
) -> None:
    async def main() -> None:
        group = GroupCommit(store)
        with gate.closed():
            tasks = [asyncio.create_task(group.exposure(exposure("ring")))]
            await entered(gate)
            tasks += [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(30)]
            await settle()
        await asyncio.gather(*tasks)
        await group.close()

    run(main)
    assert gate.groups == [1, 30]
    assert len(list(store.exposures())) == 31


def test_a_commit_has_a_largest_size(store: EventStore, gate: Gate, exposure) -> None:
    async def main() -> None:
        group = GroupCommit(store, max_rows=8)
        with gate.closed():
            tasks = [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(20)]
            await settle()
        await asyncio.gather(*tasks)
        await group.close()

    run(main)
    assert max(gate.groups) == 8
    assert sum(gate.groups) == 20


def test_answers_pass_a_large_batch_of_feedback(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, exposure, feedback
) -> None:
    write = store.write
    written: list[tuple[int, int]] = []
    began, may_go_on = threading.Event(), threading.Event()

    def watched(writes: WriteBatch) -> list[str]:
        written.append((len(writes.exposures), len(writes.feedback)))
        began.set()
        may_go_on.wait()
        return write(writes)

    monkeypatch.setattr(store, "write", watched)

    async def main() -> None:
        group = GroupCommit(store)
        events = [feedback("ring", unit="nobody") for _ in range(1000)]
        batches = [asyncio.create_task(group.feedback(events)) for _ in range(3)]
        await asyncio.to_thread(began.wait)
        answers = [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(8)]
        await settle()
        may_go_on.set()
        await asyncio.gather(*answers)
        # All of them waited for one small part of what came before.
        assert written[1] == (8, 0)
        assert sum(events for _, events in written) < 1000
        heard = await asyncio.gather(*batches)
        assert sorted({len(one) for one in heard}) == [1000]
        await group.close()

    run(main)
    assert max(events for _, events in written) <= 64
    assert len(list(store.feedback())) == 1000


def test_too_many_callers_are_told_at_once(store: EventStore, gate: Gate, exposure) -> None:
    async def main() -> None:
        group = GroupCommit(store, max_waiting=3)
        with gate.closed():
            tasks = [asyncio.create_task(group.exposure(exposure("ring")))]
            await entered(gate)
            tasks += [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(3)]
            await settle()
            with pytest.raises(Unavailable, match="too many rows"):
                await group.exposure(exposure("vase"))
        await asyncio.gather(*tasks)
        await group.close()

    run(main)
    assert len(list(store.exposures())) == 4


def test_while_the_database_is_away_callers_wait(store: EventStore, gate: Gate, exposure) -> None:
    gate.failures = [Unavailable("away")] * 3

    async def main() -> None:
        group = GroupCommit(store, max_wait_s=600)
        await group.exposure(exposure("ring"))
        await group.close()

    run(main)
    assert gate.groups == [1] * 4
    assert len(list(store.exposures())) == 1


def test_a_caller_waits_no_longer_than_it_is_told_to(
    store: EventStore, gate: Gate, exposure
) -> None:
    async def main() -> None:
        group = GroupCommit(store, max_wait_s=0.05)
        with gate.closed():
            stuck = asyncio.create_task(group.exposure(exposure("ring", request_id="stuck")))
            await entered(gate)
            late = asyncio.create_task(group.exposure(exposure("ring", request_id="late")))
            for task in (stuck, late):
                # Though the writer still hangs in its commit.
                with pytest.raises(Unavailable, match="in time"):
                    await task
        await group.close()

    run(main)
    # The second had not begun, and its caller has gone.
    assert [one.request_id for one in store.exposures()] == ["stuck"]


def test_a_row_that_cannot_be_stored_fails_alone(store: EventStore, gate: Gate, exposure) -> None:
    async def main() -> None:
        group = GroupCommit(store)
        with gate.closed():
            first = asyncio.create_task(group.exposure(exposure("ring")))
            await entered(gate)
            tasks = [
                asyncio.create_task(
                    group.exposure(exposure("ring", status=2**70 if number == 6 else 200))
                )
                for number in range(9)
            ]
            await settle()
        heard = await asyncio.gather(first, *tasks, return_exceptions=True)
        await group.close()
        assert [type(one) for one in heard if one is not None] == [InvalidField]
        assert isinstance(heard[7], InvalidField)

    run(main)
    assert len(list(store.exposures())) == 9


def test_a_caller_that_went_away_disturbs_nobody(store: EventStore, gate: Gate, exposure) -> None:
    async def main() -> None:
        group = GroupCommit(store)
        with gate.closed():
            tasks = [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(3)]
            await entered(gate)
            tasks[1].cancel()
            await settle()
        heard = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in heard] == [type(None), asyncio.CancelledError, type(None)]
        await group.close()

    run(main)
    assert len(list(store.exposures())) == 3


def test_closing_writes_what_waits_and_takes_no_more(
    store: EventStore, gate: Gate, exposure
) -> None:
    async def main() -> None:
        group = GroupCommit(store)
        with gate.closed():
            tasks = [asyncio.create_task(group.exposure(exposure("ring"))) for _ in range(9)]
            await settle()
            closing = asyncio.create_task(group.close())
            await settle()
            with pytest.raises(Unavailable, match="closed"):
                await group.exposure(exposure("ring"))
        await closing
        await asyncio.gather(*tasks)

    run(main)
    assert len(list(store.exposures())) == 9


def test_shadow_answers_go_the_same_way(store: EventStore, exposure) -> None:
    answer = exposure("ring")
    copy = ShadowAnswer(
        rollout="spring", request_id=answer.request_id, at=answer.at, latency_ms=3, overlap=0.5
    )

    async def main() -> None:
        group = GroupCommit(store)
        await asyncio.gather(group.exposure(answer), group.shadow(copy), group.shadow(copy))
        await group.close()

    run(main)
    assert shadow_summary(store, since=answer.at)[0]["requests"] == 1


def test_gateways_that_share_a_file_wait_for_each_other(tmp_path: Path, exposure) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    rows = [exposure("ring", request_id=f"{n:04}") for n in range(300)]

    async def main() -> None:
        with EventStore.open(url) as one, EventStore.open(url) as other:
            groups = [GroupCommit(store, max_wait_s=600) for store in (one, other)]
            # Every row through both: it is kept once.
            await asyncio.gather(*(group.exposure(row) for row in rows for group in groups))
            await asyncio.gather(*(group.close() for group in groups))
            assert sorted(row.request_id for row in one.exposures()) == [
                row.request_id for row in rows
            ]

    run(main)


def test_closing_does_not_wait_for_a_database_that_is_away(
    store: EventStore, gate: Gate, exposure
) -> None:
    gate.failures = [Unavailable("away")] * 1000

    async def main() -> None:
        group = GroupCommit(store, max_wait_s=0.2)
        waiting = asyncio.create_task(group.exposure(exposure("ring")))
        await settle()
        began = time.monotonic()
        await group.close()
        # Longer than a caller waits, but it ends: 1,000 pauses would take many minutes.
        assert time.monotonic() - began < 120
        with pytest.raises(Unavailable):
            await waiting

    run(main)
