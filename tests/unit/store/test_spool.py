"""What the event store cannot take waits in a file that outlives any process."""

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from newshelf.errors import InvalidField, Unavailable
from newshelf.pipeline.workspace import ROOT
from newshelf.store.records import ExposedItem, Exposure, Feedback, FeedbackOutcome, ShadowAnswer
from newshelf.store.spool import Spool
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.store.helpers import shadow_summary

MakeExposure = Callable[..., Exposure]
MakeFeedback = Callable[..., Feedback]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "spool.db"


@pytest.fixture
def spool(path: Path) -> Spool:
    return Spool(path, 2**22)


def replay_all(spool: Spool, store: EventStore) -> None:
    while spool.replay(store.write):
        pass


def test_what_is_replayed_is_what_was_written_each_once(
    store: EventStore, spool: Spool, exposure: MakeExposure, feedback: MakeFeedback
) -> None:
    assert not spool.holds()
    answers = [exposure("ring", "vase", request_id=f"{n:03}") for n in range(250)]
    odd = ExposedItem(
        item_id='a"\u2028\\é', position=1, score=-math.inf, source="model", propensity=1
    )
    answers.append(answers[0].model_copy(update={"request_id": "odd", "items": (odd,)}))
    events = [feedback("ring", request_id=one.request_id) for one in answers[:250]]
    copies = [ShadowAnswer(rollout="r", request_id="1", at=answers[0].at, latency_ms=1)]
    # Events before the answers that they name: those are replayed first.
    assert spool.write(WriteBatch(feedback=events)) == ["spooled"] * 250
    spool.write(WriteBatch(exposures=answers, shadow=copies))
    spool.write(WriteBatch(exposures=answers[:3], feedback=events[:3]))
    assert spool.holds("exposures")
    replay_all(spool, store)
    assert not spool.holds()
    assert [one.request_id for one in store.exposures()] == [
        *(f"{n:03}" for n in range(250)),
        "odd",
    ]
    assert {one.event_id: one.request_id for one in store.feedback()} == {
        one.event_id: one.request_id for one in events
    }
    assert shadow_summary(store, since=answers[0].at, rollout="r")[0]["requests"] == 1


def test_what_the_store_does_not_take_stays(
    store: EventStore, spool: Spool, exposure: MakeExposure
) -> None:
    spool.write(WriteBatch(exposures=[exposure("ring", request_id="r")]))

    def away(_writes: WriteBatch) -> list[FeedbackOutcome]:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        spool.replay(away)
    assert spool.holds("exposures")

    def lost(writes: WriteBatch) -> list[FeedbackOutcome]:
        store.write(writes)
        raise Unavailable("the answer to the commit was lost")

    with pytest.raises(Unavailable, match="lost"):
        spool.replay(lost)
    replay_all(spool, store)
    assert [one.request_id for one in store.exposures()] == ["r"]


def test_a_row_that_the_store_cannot_hold_stops_no_other(
    store: EventStore, spool: Spool, exposure: MakeExposure, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [exposure("ring", request_id=f"{n}", status=2**70 if n == 5 else 200) for n in range(9)]
    spool.write(WriteBatch(exposures=rows))
    with pytest.raises(InvalidField):
        store.write(WriteBatch(exposures=rows))
    replay_all(spool, store)
    assert {one.request_id for one in store.exposures()} == {f"{n}" for n in range(9)} - {"5"}
    assert not spool.holds()
    assert "is refused" in caplog.text


def test_a_full_spool_says_so_and_has_room_again(
    path: Path, store: EventStore, exposure: MakeExposure
) -> None:
    spool = Spool(path, 2**16)
    kept: list[str] = []

    def fill() -> None:
        for number in range(2000):
            one = exposure("ring", request_id=f"{number:04}")
            spool.write(WriteBatch(exposures=[one]))
            kept.append(one.request_id)

    with pytest.raises(Unavailable, match="full"):
        fill()
    assert 10 < len(kept) < 1000
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size <= 2**16
    replay_all(spool, store)
    assert [one.request_id for one in store.exposures()] == kept
    spool.probe()
    assert not spool.holds()


def test_threads_and_objects_share_the_file(
    path: Path, store: EventStore, exposure: MakeExposure
) -> None:
    rows = [[exposure("ring", request_id=f"{t}-{n}") for n in range(30)] for t in range(4)]

    def write(mine: list[Exposure]) -> None:
        spool = Spool(path, 2**22)
        for one in mine:
            spool.write(WriteBatch(exposures=[one]))
            spool.replay(store.write)

    threads = [threading.Thread(target=write, args=(mine,)) for mine in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replay_all(Spool(path, 2**22), store)
    stored = sorted(one.request_id for one in store.exposures())
    assert stored == sorted(one.request_id for mine in rows for one in mine)


APPEND = """
import itertools, os, sys
from datetime import UTC, datetime
from pathlib import Path
from newshelf.store.records import Exposure
from newshelf.store.spool import Spool
from newshelf.store.write import WriteBatch
spool = Spool(Path(sys.argv[1]), 2**26)
for number in itertools.count():
    answer = Exposure(request_id=f"{os.getpid()}-{number}", unit="u", at=datetime.now(UTC),
        model_version="1", index_version="1", latency_ms=1, items=())
    spool.write(WriteBatch(exposures=[answer]))
    os.write(1, (answer.request_id + "\\n").encode())
"""


def test_processes_that_are_killed_lose_nothing_that_they_acknowledged(
    path: Path, store: EventStore
) -> None:
    acknowledged: set[str] = set()
    for lines in (1, 7, 40):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", APPEND, path],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        said = b"".join(process.stdout.readline() for _ in range(lines))
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0]
        acknowledged |= set(said.rpartition(b"\n")[0].decode().split())
    # As a power cut leaves the log: its end torn.
    with path.with_name("spool.db-wal").open("ab") as log:
        log.write(b"\x00torn" * 500)
    replay_all(Spool(path, 2**26), store)
    assert acknowledged <= {one.request_id for one in store.exposures()}


@pytest.mark.parametrize("damage", [b"", b"no database at all, but long enough to be one" * 100])
def test_a_damaged_file_is_set_aside_at_the_start(
    path: Path, exposure: MakeExposure, store: EventStore, damage: bytes
) -> None:
    first = Spool(path, 2**22)
    first.write(WriteBatch(exposures=[exposure("ring", request_id="lost")] * 50))
    del first
    if damage:
        path.with_name("spool.db-wal").unlink(missing_ok=True)
        path.write_bytes(damage)
        with pytest.raises(Unavailable, match="spool"):
            Spool(path, 2**22).write(WriteBatch(exposures=[exposure("ring")]))
    spool = Spool(path, 2**22)
    spool.check()
    spool.write(WriteBatch(exposures=[exposure("ring", request_id="kept")]))
    replay_all(spool, store)
    assert "kept" in {one.request_id for one in store.exposures()}
    aside = path.with_name("spool.db.damaged")
    assert aside.exists() == bool(damage)


def test_a_spool_that_cannot_be_opened_says_which(tmp_path: Path, exposure: MakeExposure) -> None:
    blocked = tmp_path / "file" / "spool.db"
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable, match="spool"):
        Spool(blocked, 2**20).write(WriteBatch(exposures=[exposure("ring")]))
