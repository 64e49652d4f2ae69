"""Three times what a fake model answers, through a real proxy and a real gateway."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.overload import measure
from benchmarks.overload.measure import Load, Shoppers, accepted, by_fallback, refused
from benchmarks.overload.proxy import running_proxy
from loadtest.recorder import RIGHT
from newshelf.catalog.catalog import Catalog
from tests.fake_predictors import FAKE_IDS
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import ALIVE, Asked, FakeTorchServe

SERVICE_S = 0.02


@pytest.fixture
def catalog(write_catalog: Callable[..., Catalog], tmp_path: Path) -> Catalog:
    (tmp_path / "shop").mkdir()
    Image.new("RGB", (16, 16), "green").save(tmp_path / "shop" / "a.jpg")
    items = [{"id": name, "title": "a small ring", "image_link": "a.jpg"} for name in FAKE_IDS[:20]]
    events = [{"user_id": "u", "item_id": "item-001", "event_type": "click", "timestamp": 1}]
    return write_catalog(items=items, events=events)


def test_who_is_accepted_is_answered_and_the_others_are_not_kept_waiting(
    start_gateway: StartGateway,
    torchserve: FakeTorchServe,
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "_WARM_UP_S", 0.5)
    one_worker = asyncio.Lock()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        async with one_worker:
            await asyncio.sleep(SERVICE_S)
        await ALIVE(asked, writer)

    torchserve.always = slow
    # However slow the machine is: ten times as long as who is accepted waits.
    gateway = start_gateway(timeout_ms=5_000, max_wait_share=0.1, breaker_requests=4)
    key = gateway.http.headers["authorization"].removeprefix("Bearer ")
    with running_proxy(tmp_path, gateway.url.removeprefix("http://")) as proxy:
        load = Load(proxy, Shoppers(catalog, proxy.url, key))
        alone = load.closed(1.0)
        measured = load.opened(3 / SERVICE_S, 2.0)
    assert {one.result for one in alone.outcomes} == {RIGHT}
    by_kind = {kind: measured.of(kind) for kind in measured.kinds()}
    assert by_kind.keys() == {"recommend", "recommend unseen", "search", "encode", "feedback"}
    for kind, outcomes in by_kind.items():
        found = Counter(one.result for one in outcomes)
        parts = [len(of(outcomes)) for of in (accepted, by_fallback, refused)]
        assert sum(parts) == len(outcomes), (kind, found)
        # Who is turned away gets the fallback, where there is one; clicks are always stored.
        is_open = [kind != "", kind not in ("encode", "feedback"), kind == "encode"]
        assert [bool(part) for part in parts] == is_open, (kind, found)
    page = gateway.http.get("/metrics").text
    for model in ("encoder", "recommender"):
        assert f'newshelf_gateway_breaker{{model="{model}",version="default"}} 0.0' in page
