"""Timelines of requests, the queue's counters, the breakdown and the trace."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any, cast

import pytest
from rich.console import Console

from loadtest.server_metrics import Counts
from loadtest.tuning.load import Exchange
from loadtest.tuning.profile import (
    breakdown_table,
    read_queue,
    read_timelines,
    trace_document,
)
from newshelf.errors import ServerError
from newshelf.report.page import print_table
from newshelf.server.client import Client
from newshelf.serving.trace import TraceSpan, write_trace
from tests.unit.loadtest.tuning.conftest import MakeTimeline


def told() -> str:
    return write_trace(9, 3, 1000, [TraceSpan("inference", 2000, 5000)])


def test_client_and_worker_times_are_combined() -> None:
    [one] = read_timelines([Exchange(4, 0, 2**62, told())])
    assert (one.client, one.batch.worker, one.batch.size) == (4, 9, 3)
    assert one.stages_ns()["inference"] == 3000
    assert (
        one.to_worker_ns + (one.batch.end_ns - one.batch.start_ns) + one.to_client_ns
        == one.total_ns
    )
    assert one.between_ns == one.batch.end_ns - one.batch.start_ns - 3000


@pytest.mark.parametrize(
    ("header", "end", "reason"),
    [
        (None, 2**62, "returns no spans"),
        ("{}", 2**62, "cannot be read"),
        (told(), 1, "clock is not the client's"),
    ],
    ids=["none", "other", "clock"],
)
def test_inconsistent_times_are_an_error(header: str | None, end: int, reason: str) -> None:
    with pytest.raises(ServerError, match=reason):
        read_timelines([Exchange(0, 0, end, header)])


PAGE = """\
# TYPE ts_queue_latency_microseconds counter
ts_queue_latency_microseconds{{model_name="encoder",model_version="default",hostname="h",}} {0}
ts_queue_latency_microseconds{{model_name="recommender",model_version="1",hostname="h",}} 9e9
ts_inference_requests_total{{model_name="encoder",model_version="default",hostname="h",}} {1}
ts_inference_requests_total{{model_name="encoder",model_version="7",hostname="h",}} 1.0
QueueTime{{Level="Host",Hostname="h",}} 5.0
"""


class Pages:
    """A client whose metrics page goes on changing for a while."""

    def __init__(self, *pages: str) -> None:
        self.pages = list(pages)

    def metrics(self) -> str:
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]


def test_one_models_versions_are_added_up_when_they_have_settled() -> None:
    pages = Pages(PAGE.format(1000, 2), PAGE.format("4.5e3", 3), PAGE.format("4.5e3", 3))
    counts = read_queue(cast("Client", pages), "encoder")
    assert (counts.requests, counts.queued_us) == (4.0, 4500.0)


def test_a_server_that_counted_nothing_says_nothing() -> None:
    nothing = read_queue(cast("Client", Pages("")), "encoder")
    assert nothing.since(nothing).queue_ms is None


def test_the_mean_wait_is_of_the_requests_in_between() -> None:
    assert Counts(30, 70_000.0).since(Counts(10, 10_000.0)).queue_ms == 3.0


def test_the_parts_add_up_to_the_total(timeline: MakeTimeline) -> None:
    rows = breakdown_table([timeline(sent_ms=at) for at in range(5)], 1.5, "").rows
    parts = {str(row[0]).strip(): float(str(row[1])) for row in rows}
    assert parts == {
        "to the worker": 2.0,
        "socket and frontend": 0.5,
        "TorchServe's queue": 1.5,
        "parse the requests": 1.0,
        "decode pictures": 2.0,
        "preprocess": 0.0,
        "inference": 4.0,
        "postprocess": 1.0,
        "between the stages": 2.0,
        "back to the client": 1.0,
        "whole request": 13.0,
    }
    top = [[str(cell) for cell in row] for row in rows[:-1] if not str(row[0]).startswith(" ")]
    assert sum(float(row[4].rstrip("%")) for row in top) == pytest.approx(100, abs=0.5)
    assert all(row[1] == row[2] == row[3] for row in top)


def test_without_counters_the_table_omits_the_queue(timeline: MakeTimeline) -> None:
    table = breakdown_table([timeline()], None, "")
    assert not [row for row in table.rows if "queue" in str(row[0])]
    assert table.dim_rows == []


def test_the_table_shows_every_part(timeline: MakeTimeline) -> None:
    console = Console(width=80, record=True)
    print_table(breakdown_table([timeline()], 1.5, "1 request"), console)
    text = console.export_text()
    assert "1 request" in text
    line = next(line for line in text.splitlines() if "inference" in line)
    assert line.count("4.000") == 3
    assert "30.8%" in line
    assert "100.0%" in text


def events(document: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] == phase]


def document(timeline: MakeTimeline) -> dict[str, Any]:
    """Two clients share a batch; one of them then sends again, and another worker answers."""
    shared = [timeline(client=client, size=2) for client in (0, 1)]
    made = trace_document([*shared, timeline(client=0, sent_ms=20, worker=78)], "encoder")
    # As it is read back from the file.
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def test_slices_of_a_track_are_nested_or_apart(timeline: MakeTimeline) -> None:
    tracks = defaultdict(list)
    for event in events(document(timeline), "X"):
        assert event["dur"] >= 0
        tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) == 4
    for slices in tracks.values():
        for (start, end), (later, ends) in pairwise(sorted(slices, key=lambda s: (s[0], -s[1]))):
            assert later >= end or (later >= start and ends <= end)


def test_every_track_has_a_name_and_no_process_is_the_idle_one(timeline: MakeTimeline) -> None:
    made = document(timeline)
    names = {
        (event["name"], event["pid"], event["tid"]): event["args"]["name"]
        for event in events(made, "M")
    }
    tracks = {(event["pid"], event["tid"]) for event in events(made, "X")}
    for pid, tid in tracks:
        assert pid > 0
        assert tid > 0
        assert ("process_name", pid, tid) in names or any(
            kind == "process_name" and one == pid for kind, one, _ in names
        )
        assert ("thread_name", pid, tid) in names
    assert "encoder worker 78" in names.values()
    assert "client 2" in names.values()


def test_a_batch_is_drawn_once_with_its_size_and_stages(timeline: MakeTimeline) -> None:
    slices = events(document(timeline), "X")
    batches = [event for event in slices if event["name"].startswith("batch of")]
    assert [(one["pid"], one["args"]["batch size"]) for one in batches] == [(77, 2), (78, 1)]
    assert batches[0]["dur"] == 10_000
    stages = [event["name"] for event in slices if event["pid"] == 78]
    assert stages == ["batch of 1", "parse", "decode", "inference", "postprocess"]


def test_requests_begin_at_zero_and_know_their_batch(timeline: MakeTimeline) -> None:
    requests = [e for e in events(document(timeline), "X") if e["name"] == "POST encoder"]
    assert [one["ts"] for one in requests] == [0, 0, 20_000]
    assert [one["args"]["batch size"] for one in requests] == [2, 2, 1]
    assert {one["dur"] for one in requests} == {13_000}


def test_an_arrow_leads_from_each_request_into_its_batch(timeline: MakeTimeline) -> None:
    made = document(timeline)
    starts, ends = events(made, "s"), events(made, "f")
    assert [one["id"] for one in starts] == [one["id"] for one in ends] == [0, 1, 2]
    batches = [e for e in events(made, "X") if e["name"].startswith("batch of")]
    for end in ends:
        assert end["bp"] == "e"
        assert any(
            b["pid"] == end["pid"] and b["ts"] <= end["ts"] <= b["ts"] + b["dur"] for b in batches
        )


def test_no_request_is_an_empty_trace() -> None:
    assert events(trace_document([], "encoder"), "X") == []
