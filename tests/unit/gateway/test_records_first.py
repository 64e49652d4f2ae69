"""An answer leaves when it is written down, and not before."""

import asyncio
from collections.abc import Sequence

import pytest

from newshelf.config import GatewaySettings, HistorySettings, Limits
from newshelf.errors import DeadlineExceeded, Unavailable
from newshelf.gateway.context import RequestContext
from newshelf.gateway.cursor import Cursors
from newshelf.gateway.fallback import Fallback, PopularItem
from newshelf.gateway.histories import Histories, pseudonyms
from newshelf.gateway.models import Models
from newshelf.gateway.observability import NO_SPANS, GatewayMetrics
from newshelf.gateway.recommend import RecommendService, ShadowTraffic
from newshelf.gateway.schemas import parse_recommend_body
from newshelf.gateway.upstream import Reply, Tokens
from newshelf.rollout.assignment import Router
from newshelf.serving.protocol import Deadline
from newshelf.store.records import Exposure, ShadowAnswer, Traffic, TrafficSplit
from newshelf.store.units import Interaction
from tests.unit.gateway.fake_torchserve import FakeTorchServe, late


class NothingCopied:
    """No rollout is in its shadow phase, so nothing may come here."""

    async def shadow(self, answer: ShadowAnswer) -> None:
        pytest.fail(f"a copy was recorded: {answer}")


class Recorder:
    """Writes answers when it is told that it may."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.exposures: list[Exposure] = []

    async def exposure(self, exposure: Exposure) -> None:
        if self.away:
            raise Unavailable("the event store is away")
        await self.may_write.wait()
        self.exposures.append(exposure)

    async def shown(self, request_ids: Sequence[str]) -> list[str]:
        return []

    async def history(self, unit: str, limit: int) -> list[Interaction]:
        return []


def recommender(
    torchserve: FakeTorchServe, recorder: Recorder, *, required: bool = True
) -> RecommendService:
    settings = GatewaySettings()
    models, metrics = Models(torchserve.url, Tokens(None, None), settings), GatewayMetrics()
    return RecommendService(
        models=models,
        router=Router(Traffic),
        fallback=Fallback([PopularItem(id="popular", share=1.0)]),
        recorder=recorder,
        shadow=ShadowTraffic(models, NothingCopied(), metrics, timeout_ms=1000, at_once=1),
        metrics=metrics,
        spans=NO_SPANS,
        cursors=Cursors(b"key", 60, recorder),
        histories=Histories(recorder, HistorySettings(items=0), metrics),
        pseudonym=pseudonyms(None),
        record_required=required,
        explore_share=0.0,
    )


async def ask(one: RecommendService, timeout_ms: float = 20_000) -> Reply:
    asked = parse_recommend_body(b'{"unit": "u"}', "application/json", Limits())
    return await one.answer(asked, RequestContext("r1", 0.0, Deadline.after(timeout_ms)))


def test_the_answer_waits_for_its_record(torchserve: FakeTorchServe) -> None:
    async def main() -> None:
        recorder = Recorder()
        recorder.may_write.clear()
        answer = asyncio.create_task(ask(recommender(torchserve, recorder)))
        while not torchserve.asked:
            await asyncio.sleep(0.01)
        done, _ = await asyncio.wait([answer], timeout=0.2)
        assert not done
        recorder.may_write.set()
        assert (await answer).status == 200
        assert [exposure.request_id for exposure in recorder.exposures] == ["r1"]

    asyncio.run(main())


def test_what_cannot_be_recorded_is_not_answered(torchserve: FakeTorchServe) -> None:
    with pytest.raises(Unavailable, match="store is away"):
        asyncio.run(_ask_without_store(torchserve, required=True))


def test_unless_the_settings_say_that_it_may(torchserve: FakeTorchServe) -> None:
    assert asyncio.run(_ask_without_store(torchserve, required=False)).status == 200


async def _ask_without_store(torchserve: FakeTorchServe, *, required: bool) -> Reply:
    one = recommender(torchserve, Recorder(away=True), required=required)
    return await ask(one)


def test_when_nobody_waits_any_more_nothing_is_shown(torchserve: FakeTorchServe) -> None:
    async def main() -> list[Exposure]:
        torchserve.always = late(30)
        recorder = Recorder()
        with pytest.raises(DeadlineExceeded):
            await ask(recommender(torchserve, recorder), timeout_ms=0)
        return recorder.exposures

    assert asyncio.run(main()) == []


def test_a_store_that_is_away_changes_no_variant() -> None:
    split = TrafficSplit(rollout="r", salt="s", control="old", challenger="new", share=0.5)
    answers: list[Traffic | None] = [Traffic((split,)), None, Traffic(version="new")]

    def read() -> Traffic:
        answer = answers.pop(0)
        if answer is None:
            raise Unavailable("away")
        return answer

    async def main() -> None:
        router = Router(read)
        assert router.route("u").split is None
        await router.refresh()
        first = router.route("u")
        await router.refresh()
        assert router.route("u") == first
        assert first.split == split
        await router.refresh()
        assert router.route("u").split is None
        assert {router.route(unit).assigned.version for unit in ("u", "")} == {"new"}

    asyncio.run(main())


def test_of_two_rollouts_the_one_that_a_unit_takes_part_in_decides() -> None:
    base = TrafficSplit(rollout="a", salt="a", control="old", challenger="new", share=0.1)
    other = base.model_copy(update={"rollout": "b", "salt": "b", "challenger": "newer"})

    async def main() -> set[tuple[str, str]]:
        router = Router(lambda: Traffic((base, other)))
        await router.refresh()
        seen = set()
        for number in range(500):
            routed = router.route(f"u{number}")
            assert routed.split is not None
            seen.add((routed.split.rollout, routed.assigned.variant))
        return seen

    assert asyncio.run(main()) == {
        ("a", "control"), ("a", "challenger"), ("a", "default"),
        ("b", "control"), ("b", "challenger"),
    }  # fmt: skip
