"""Fixtures that several folders of tests share.

Each loads what it needs when it is asked for: most runs of a few tests need neither torch nor a
database.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from newshelf.catalog.catalog import Catalog
    from newshelf.config import Settings
    from newshelf.nn.encoder import Encoder
    from newshelf.nn.scorer import SiameseScorer
    from newshelf.nn.spec import ModelSpec
    from newshelf.server.program import GatewayPlan
    from newshelf.server.state import ServerState
    from tests.fake_server import FakeServer
    from tests.gateways import StartGateway
    from tests.said import Said
    from tests.unit.gateway.fake_torchserve import FakeTorchServe


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An event store in SQLite without rows, to copy: migrations take longer than most tests."""
    from newshelf.store.store import EventStore

    path = tmp_path_factory.mktemp("store") / "events.db"
    EventStore.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def store_url(tmp_path: Path, empty_store: Path) -> str:
    """Of an empty event store of this test, ``events.db``."""
    shutil.copyfile(empty_store, tmp_path / "events.db")
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture(scope="session")
def spec() -> "ModelSpec":
    """Of the tiny model in ``bundle``, as are ``encoder`` and ``scorer``."""
    from tests.served_model import model_spec

    return model_spec()


@pytest.fixture(scope="session")
def encoder(spec: "ModelSpec") -> "Encoder":
    from tests.served_model import made_encoder

    return made_encoder(spec)


@pytest.fixture(scope="session")
def scorer(spec: "ModelSpec") -> "SiameseScorer":
    from tests.served_model import made_scorer

    return made_scorer(spec)


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory,
    spec: "ModelSpec",
    encoder: "Encoder",
    scorer: "SiameseScorer",
) -> Path:
    """An unpacked recommender archive, without its code; not to be changed."""
    from tests.served_model import write_bundle

    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder, spec, encoder, scorer)
    return folder


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    from tests.served_model import draw_picture

    return draw_picture


@pytest.fixture
def fake_server() -> "FakeServer":
    from tests.fake_server import FakeServer

    return FakeServer()


@pytest.fixture
def server_state(fake_server: "FakeServer", tmp_path: Path) -> "Iterator[ServerState]":
    """Of the fake server, which answers."""
    from tests.fake_server import running

    with running(fake_server, tmp_path) as state:
        yield state


@pytest.fixture
def popular(tmp_path: Path) -> Path:
    """The fake recommender's items, as the gateway's fallback reads them."""
    from tests.gateways import write_popular_products

    write_popular_products(tmp_path / "popular.json")
    return tmp_path / "popular.json"


@pytest.fixture
def torchserve() -> "Iterator[FakeTorchServe]":
    """What a gateway asks."""
    from tests.unit.gateway.fake_torchserve import FakeTorchServe

    with FakeTorchServe() as server:
        yield server


@pytest.fixture
def gateway_plan(
    tmp_path: Path, popular: Path, torchserve: "FakeTorchServe", store_url: str
) -> "GatewayPlan":
    from newshelf.config import GatewaySettings
    from newshelf.server.program import GatewayPlan

    return GatewayPlan(
        settings=GatewaySettings(),
        inference_url=torchserve.url,
        api_keys=tmp_path / "keys.json",
        popular=popular,
        store_url=store_url,
    )


@pytest.fixture
def start_gateway(gateway_plan: "GatewayPlan") -> "Iterator[StartGateway]":
    from tests.gateways import starting

    with starting(gateway_plan) as start:
        yield start


@pytest.fixture
def said() -> "Said":
    """A console that keeps what is printed."""
    from tests.said import Said

    return Said()


@pytest.fixture
def write_catalog(tmp_path: Path) -> "Callable[..., Catalog]":
    """Write tables (lists of rows) to a folder, and read it as a catalogue."""
    import pandas as pd

    from newshelf.catalog.catalog import read_catalog

    def write(name: str = "shop", **tables: list[dict[str, object]]) -> "Catalog":
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for table, rows in tables.items():
            pd.DataFrame(rows).to_csv(folder / f"{table}.csv", index=False)
        return read_catalog(folder)

    return write


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> "Settings":
    """Of a training that takes a second."""
    from newshelf.config import FinetuneSettings, ScorerSettings, Settings
    from tests.unit.nn.tiny_towers import save_image_tower, save_text_tower

    folder = tmp_path_factory.mktemp("towers")
    return Settings(
        threads=1,
        image=save_image_tower(folder / "resnet.pth"),
        text=save_text_tower(folder / "bert"),
        finetune=FinetuneSettings(epochs=3, batch_size=16),
        scorer=ScorerSettings(width=16, epochs=3, batch_size=32),
    )
