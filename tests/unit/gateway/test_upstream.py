"""Connections, deadlines and retries, seen from the wire."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from newshelf.errors import DeadlineExceeded, Overloaded, Unavailable
from newshelf.gateway.upstream import Pace, Reply, Upstream
from newshelf.serving.protocol import Deadline
from tests.unit.gateway.fake_torchserve import FakeTorchServe, broken, closed, late, raw, status

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def run(
    server: FakeTorchServe,
    use: Callable[[Upstream], Awaitable[T]],
    *,
    connections: int = 4,
    retry_share: float = 0.1,
) -> T:
    async def main() -> T:
        upstream = Upstream(server.url, connections=connections, retry_share=retry_share)
        try:
            return await use(upstream)
        finally:
            await upstream.close()

    return asyncio.run(main())


async def post(upstream: Upstream, timeout_ms: float = 20_000) -> Reply:
    deadline = Deadline.after(timeout_ms)
    return await upstream.post("/predictions/recommender", b"{}", "", deadline)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nCONTENT-TYPE: text/plain\r\ncontent-length:5\r\n\r\nhello",
    ],
)
def test_an_answer_is_read_whole(torchserve: FakeTorchServe, answer: bytes) -> None:
    torchserve.always = raw(answer)
    assert run(torchserve, post) == Reply(200, "text/plain", b"hello")


def test_an_answer_may_come_in_single_bytes(torchserve: FakeTorchServe) -> None:
    async def bytewise(_asked: object, writer: asyncio.StreamWriter) -> None:
        for byte in OK + b"Content-Length: 5\r\n\r\nhello":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    torchserve.always = bytewise
    assert run(torchserve, post).body == b"hello"


def test_a_server_that_closes_after_each_answer_is_connected_to_again(
    torchserve: FakeTorchServe,
) -> None:
    torchserve.always = raw(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")

    async def twice(upstream: Upstream) -> int:
        await post(upstream)
        await post(upstream)
        return upstream.retries

    assert run(torchserve, twice) == 0
    assert torchserve.connections == 2


def test_closed_before_a_byte_is_tried_once_more(torchserve: FakeTorchServe) -> None:
    torchserve.behaviours = [closed]

    async def once(upstream: Upstream) -> tuple[int, int]:
        return (await post(upstream)).status, upstream.retries

    assert run(torchserve, once) == (200, 1)
    assert len(torchserve.asked) == 2


def test_closed_twice_is_given_up(torchserve: FakeTorchServe) -> None:
    torchserve.always = closed
    with pytest.raises(Unavailable, match="cannot be reached"):
        run(torchserve, post)
    assert len(torchserve.asked) == 2


def test_an_answer_that_has_begun_is_not_asked_for_again(torchserve: FakeTorchServe) -> None:
    torchserve.behaviours = [broken]
    with pytest.raises(Unavailable):
        run(torchserve, post)
    assert len(torchserve.asked) == 1


def test_a_refused_connection_is_unavailable(torchserve: FakeTorchServe) -> None:
    torchserve.stop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        run(torchserve, post)


def test_without_a_budget_nothing_is_sent_twice(torchserve: FakeTorchServe) -> None:
    torchserve.always = closed
    with pytest.raises(Unavailable):
        run(torchserve, post, retry_share=0)
    assert len(torchserve.asked) == 1


def test_a_late_answer_reaches_nobody(torchserve: FakeTorchServe) -> None:
    """Not the one who asked, and not the next one, who gets a connection of its own."""
    torchserve.behaviours = [late(0.3, raw(OK + b"Content-Length: 4\r\n\r\nlate"))]

    async def in_time_after_late(upstream: Upstream) -> bytes:
        with pytest.raises(DeadlineExceeded):
            await post(upstream, timeout_ms=50)
        torchserve.always = raw(OK + b"Content-Length: 7\r\n\r\nin time")
        await asyncio.sleep(0.5)
        return (await post(upstream)).body

    assert run(torchserve, in_time_after_late) == b"in time"
    assert torchserve.connections == 2


def test_bytes_that_nobody_asked_for_end_the_connection(torchserve: FakeTorchServe) -> None:
    torchserve.behaviours = [raw(OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n")]

    async def twice(upstream: Upstream) -> int:
        await post(upstream)
        return (await post(upstream)).status

    assert run(torchserve, twice) == 200


def test_an_answer_without_end_is_cut_off(torchserve: FakeTorchServe) -> None:
    torchserve.always = raw(OK + b"Content-Length: 99999999\r\n\r\n" + b"x" * (17 * 1024 * 1024))
    with pytest.raises(Unavailable, match="more than"):
        run(torchserve, post)


def test_waiting_requests_get_the_connections_in_turn(torchserve: FakeTorchServe) -> None:
    torchserve.always = late(0.01)

    async def many(upstream: Upstream) -> list[int]:
        replies = [await asyncio.gather(*(post(upstream) for _ in range(4))) for _ in range(10)]
        return [reply.status for round_ in replies for reply in round_]

    assert run(torchserve, many, connections=2) == [200] * 40
    assert torchserve.connections == 2


def test_one_who_gives_up_waiting_leaves_its_turn_to_the_next(torchserve: FakeTorchServe) -> None:
    torchserve.behaviours = [late(0.2)]

    async def three(upstream: Upstream) -> list[object]:
        first = asyncio.create_task(post(upstream))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(post(upstream, timeout_ms=50))
        await asyncio.sleep(0)
        done = await asyncio.gather(first, second, return_exceptions=True)
        return [*done, await post(upstream)]

    first, second, third = run(torchserve, three, connections=1)
    assert isinstance(second, DeadlineExceeded)
    assert isinstance(first, Reply)
    assert isinstance(third, Reply)


def test_who_comes_later_does_not_overtake_who_waits(torchserve: FakeTorchServe) -> None:
    torchserve.always = late(0.01)

    async def two_clients(upstream: Upstream) -> list[str]:
        order: list[str] = []

        async def ask(name: str, times: int) -> None:
            for _ in range(times):
                await post(upstream)
                order.append(name)

        await asyncio.gather(ask("first", 5), ask("second", 1))
        return order

    # The first client asks again as soon as its answer has freed the only connection.
    assert run(torchserve, two_clients, connections=1) == ["first", "second", *["first"] * 4]


def test_a_turn_that_nobody_takes_goes_to_the_next(torchserve: FakeTorchServe) -> None:
    torchserve.always = late(0.01)

    async def cancelled(upstream: Upstream) -> list[object]:
        first, second, third = (asyncio.create_task(post(upstream)) for _ in range(3))
        # Its callback comes before the second continues with the connection that it was given.
        first.add_done_callback(lambda _: second.cancel())
        return await asyncio.gather(first, second, third, return_exceptions=True)

    first, second, third = run(torchserve, cancelled, connections=1)
    assert isinstance(first, Reply)
    assert isinstance(second, asyncio.CancelledError)
    assert isinstance(third, Reply)


def test_the_pace_is_that_of_long_queues() -> None:
    pace = Pace()
    assert pace.wait_s(1_000) == 0
    pace.learn(1, 0.03)
    assert pace.wait_s(10) == pytest.approx(0.3)
    # Full batches of two workers: a tenth of the time that a lone request takes.
    for place in range(1, 51):
        pace.learn(place, place * 0.003)
    assert pace.wait_s(10) == pytest.approx(0.03, rel=0.05)


def test_the_pace_forgets() -> None:
    pace = Pace()
    for pace_s in (0.1, 0.001):
        for _ in range(500):
            pace.learn(20, 20 * pace_s)
        assert pace.wait_s(20) == pytest.approx(20 * pace_s, rel=0.01)


def test_who_would_wait_too_long_is_refused(torchserve: FakeTorchServe) -> None:
    torchserve.behaviours = [late(0.2), late(60)]

    async def one_ahead(upstream: Upstream) -> None:
        await post(upstream)
        # Nobody is before it: a slow model is still asked.
        upstream.admit(0.0)
        ahead = asyncio.create_task(post(upstream))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many requests wait"):
            upstream.admit(0.1)
        upstream.admit(60.0)
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)

    run(torchserve, one_ahead)


def test_failures_say_nothing_about_the_pace(torchserve: FakeTorchServe) -> None:
    torchserve.behaviours = [late(0.2), *[status(503)] * 200, late(60)]

    async def one_ahead(upstream: Upstream) -> None:
        await post(upstream)
        for _ in range(200):
            assert (await post(upstream)).status == 503
        ahead = asyncio.create_task(post(upstream))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            upstream.admit(0.1)
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)

    run(torchserve, one_ahead)


def test_retries_are_a_share_of_the_requests(torchserve: FakeTorchServe) -> None:
    torchserve.always = closed

    async def many(upstream: Upstream) -> list[int]:
        counts = []
        for _ in range(60):
            with pytest.raises(Unavailable):
                await post(upstream)
            counts.append(upstream.retries)
        return counts

    counts = run(torchserve, many)
    assert counts[9] == 10
    assert counts[-1] == pytest.approx(10 + 0.1 * 55, abs=1)
    assert len(torchserve.asked) == 60 + counts[-1]
