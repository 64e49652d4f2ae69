import pytest

from newshelf.errors import ServerError
from newshelf.serving.trace import TraceSpan, write_trace
from newshelf.tuning.load import Exchange
from newshelf.tuning.profile import journeys


def told() -> str:
    return write_trace(9, 3, 1000, [TraceSpan("inference", 2000, 5000)])


def test_both_ends_are_put_together() -> None:
    [one] = journeys([Exchange(4, 0, 2**62, 2**62, told())])
    assert (one.client, one.batch.worker, one.batch.size) == (4, 9, 3)
    assert one.stages_ns()["inference"] == 3000
    assert one.there_ns + (one.batch.end_ns - one.batch.start_ns) + one.back_ns == one.total_ns
    assert one.between_ns == one.batch.end_ns - one.batch.start_ns - 3000


@pytest.mark.parametrize(
    ("header", "end", "reason"),
    [
        (None, 2**62, "tells no spans"),
        ("{}", 2**62, "cannot be read"),
        (told(), 1, "clock is not the client's"),
    ],
    ids=["none", "other", "clock"],
)
def test_what_cannot_be_put_together_says_why(header: str | None, end: int, reason: str) -> None:
    with pytest.raises(ServerError, match=reason):
        journeys([Exchange(0, 0, end, end, header)])
