"""What is read of TorchServe's metrics page, and how samples are taken."""

import threading

import pytest

from loadtest.record import WorkerSample
from loadtest.server_metrics import Counts, ServerSnapshot, ServerWatch, read_page
from newshelf.serving.trace import BATCH_SIZE

WORKER = WorkerSample(
    model="encoder", worker="9000", pid=7, status="READY", memory_bytes=5, cpu_percent=1
)
BOUNDS = (0.005, 1.0, 2.5, 5.0, 7.5, 10.0, float("inf"))


def page(*, requests=0, queued_us=0.0, sizes=(), model="encoder"):
    """As TorchServe 0.12 writes it, with the Java client's own buckets."""
    labels = f'ModelName="{model}",Level="Model",Hostname="h",'
    counted = [sum(size <= bound for size in sizes) for bound in BOUNDS]
    bounds = ["+Inf" if bound == float("inf") else str(bound) for bound in BOUNDS]
    return "\n".join(
        [
            "# HELP ts_inference_requests_total Torchserve prometheus counter metric",
            "# TYPE ts_inference_requests_total counter",
            f'ts_inference_requests_total{{model_name="{model}",model_version="1",hostname="h",}} '
            f"{requests}.0",
            "# HELP ts_queue_latency_microseconds Torchserve prometheus counter metric",
            "# TYPE ts_queue_latency_microseconds counter",
            f'ts_queue_latency_microseconds{{model_name="{model}",model_version="1",'
            f'hostname="h",}} {queued_us}',
            f"# HELP {BATCH_SIZE.name} Torchserve prometheus histogram metric with unit: count",
            f"# TYPE {BATCH_SIZE.name} histogram",
            *[
                f'{BATCH_SIZE.name}_bucket{{{labels}le="{bound}",}} {count}.0'
                for bound, count in zip(bounds, counted, strict=True)
            ],
            f"{BATCH_SIZE.name}_count{{{labels}}} {len(sizes)}.0",
            f"{BATCH_SIZE.name}_sum{{{labels}}} {sum(sizes)}.0",
            "# HELP QueueTime Torchserve prometheus gauge metric with unit: Milliseconds",
            "# TYPE QueueTime gauge",
            'QueueTime{Level="Host",Hostname="h",} 0.0',
            "",
        ]
    )


class FakeServer:
    """Answers with the pages in turn; None is away."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.closed = False
        self.all_looked_at = threading.Event()

    def look(self):
        text = self.pages.pop(0) if self.pages else None
        if not self.pages:
            self.all_looked_at.set()
        return None if text is None else ServerSnapshot(read_page(text), (WORKER,))

    def close(self):
        self.closed = True


def samples(*pages):
    moments = iter(range(100))
    watch = ServerWatch(FakeServer(*pages), clock=lambda: 1000.0 + next(moments))
    for _ in pages:
        watch.look()
    return watch.samples(1000.0)


def test_counts_of_all_models_are_added():
    both = page(requests=3, queued_us=900.0, sizes=[1, 2]) + page(
        requests=1, queued_us=300.0, sizes=[1], model="recommender"
    )
    counts = read_page(both)
    assert (counts.requests, counts.queue_ms, counts.batched) == (4, 0.3, 4)
    assert counts.batch_sizes() == {1: 2, 2: 1}
    counts = read_page(both, "recommender")
    assert (counts.requests, counts.queue_ms, counts.batched) == (1, 0.3, 1)
    assert counts.batch_sizes() == {1: 1}


def test_batch_sizes_by_what_the_buckets_leave_open_and_by_the_mean_above_them():
    sizes = [1, 1, 2, 3, 4, 5, 6, 8, 32, 32]
    counts = read_page(page(sizes=sizes))
    found = counts.batch_sizes()
    assert sum(found.values()) == len(sizes)
    assert {size: found[size] for size in (1, 2, 5, 7, 10)} == {1: 2, 2: 1, 5: 3, 7: 1, 10: 1}
    # 94 requests, at most 36 of them in the smaller batches.
    assert found[max(found)] == 2
    assert 11 <= max(found) <= 32


def test_no_page_of_prometheus_is_refused():
    with pytest.raises(ValueError, match=r"could not convert|[Ii]nvalid|expected|unpack"):
        read_page("<html>no {{metrics")


def test_samples_tell_the_differences():
    first, second, third = samples(
        page(requests=10, queued_us=1e6, sizes=[2] * 5),
        page(requests=14, queued_us=1e6 + 8000, sizes=[2] * 5 + [1] * 4),
        page(requests=14, queued_us=1e6 + 8000, sizes=[2] * 5 + [1] * 4),
    )
    assert (first.queue_ms, first.batch_sizes, first.batched) == (None, {}, 0)
    assert (second.queue_ms, second.batch_sizes, second.batched) == (2.0, {1: 4}, 4)
    assert (third.queue_ms, third.batch_sizes) == (None, {})
    assert [one.at_s for one in (first, second, third)] == [0, 1, 2]
    assert second.workers == (WORKER,)


def test_a_server_that_is_away_is_a_sample_and_its_counters_begin_anew():
    found = samples(page(requests=100, sizes=[1] * 100), None, page(requests=3, sizes=[1] * 3))
    assert [one.reachable for one in found] == [True, False, True]
    assert found[1].workers == ()
    assert found[2].batch_sizes == {1: 3}


def test_only_what_was_seen_while_it_was_measured_counts():
    moments = iter([8.0, 9.5, 10.0, 12.0, 13.5])
    watch = ServerWatch(FakeServer(*[page()] * 5), clock=lambda: next(moments))
    for _ in range(5):
        watch.look()
    assert [one.at_s for one in watch.samples(9.5, 3.0)] == [0.0, 0.5, 2.5]


def test_it_samples_until_it_is_left():
    server = FakeServer(*[page()] * 4)
    with ServerWatch(server, period_s=0.01) as watch:
        assert server.all_looked_at.wait(30)
    seen = watch.samples(0.0)
    assert len(seen) >= 4
    assert server.closed
    assert watch.samples(0.0) == seen


def test_a_mistake_in_a_look_is_told_when_it_is_left():
    class Broken(FakeServer):
        def look(self):
            self.all_looked_at.set()
            raise ZeroDivisionError

    server = Broken()

    def watched():
        with ServerWatch(server, period_s=0.01):
            assert server.all_looked_at.wait(30)

    with pytest.raises(ZeroDivisionError):
        watched()


def test_counts_that_did_not_move_have_no_queue_time():
    assert Counts().queue_ms is None
