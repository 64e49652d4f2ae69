"""The trace's rules: https://ui.perfetto.dev shows what keeps them."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

from newshelf.tuning.profile import trace_document
from tests.unit.tuning.journeys import MakeJourney


def events(document: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] == phase]


def document(journey: MakeJourney) -> dict[str, Any]:
    """Two clients share a batch; one of them then sends again, and another worker answers."""
    shared = [journey(client=client, size=2) for client in (0, 1)]
    made = trace_document([*shared, journey(client=0, sent_ms=20, worker=78)], "encoder")
    # As it is read back from the file.
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def test_slices_of_a_track_are_nested_or_apart(journey: MakeJourney) -> None:
    tracks = defaultdict(list)
    for event in events(document(journey), "X"):
        assert event["dur"] >= 0
        tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) == 4
    for slices in tracks.values():
        for (start, end), (later, ends) in pairwise(sorted(slices, key=lambda s: (s[0], -s[1]))):
            assert later >= end or (later >= start and ends <= end)


def test_every_track_has_a_name_and_no_process_is_the_idle_one(journey: MakeJourney) -> None:
    made = document(journey)
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


def test_a_batch_is_drawn_once_with_its_size_and_stages(journey: MakeJourney) -> None:
    slices = events(document(journey), "X")
    batches = [event for event in slices if event["name"].startswith("batch of")]
    assert [(one["pid"], one["args"]["batch size"]) for one in batches] == [(77, 2), (78, 1)]
    assert batches[0]["dur"] == 10_000
    stages = [event["name"] for event in slices if event["pid"] == 78]
    assert stages == ["batch of 1", "parse", "decode", "inference", "postprocess"]


def test_requests_begin_at_zero_and_know_their_batch(journey: MakeJourney) -> None:
    requests = [e for e in events(document(journey), "X") if e["name"] == "POST encoder"]
    assert [one["ts"] for one in requests] == [0, 0, 20_000]
    assert [one["args"]["batch size"] for one in requests] == [2, 2, 1]
    assert {one["dur"] for one in requests} == {13_000}


def test_an_arrow_leads_from_each_request_into_its_batch(journey: MakeJourney) -> None:
    made = document(journey)
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
