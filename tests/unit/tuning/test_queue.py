from typing import cast

from newshelf.server.client import Client
from newshelf.tuning.profile import QueueCount, read_queue

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
    assert read_queue(cast("Client", pages), "encoder") == QueueCount(4.0, 4.5)


def test_a_server_that_counted_nothing_says_nothing() -> None:
    nothing = read_queue(cast("Client", Pages("")), "encoder")
    assert nothing == QueueCount(0.0, 0.0)
    assert nothing.since(nothing) is None


def test_the_mean_is_of_what_came_between() -> None:
    assert QueueCount(30, 70.0).since(QueueCount(10, 10.0)) == 3.0
