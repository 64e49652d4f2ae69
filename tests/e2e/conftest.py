"""A real TorchServe with small but truly trained models, shared by every e2e test.

Those that share it are one group, so that one pytest process builds and starts it once.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.cli.jobs import make_jobs
from newshelf.cli.pipeline import settings_from
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.pipeline.serve import Served, serve
from newshelf.pipeline.workspace import Workspace, open_workspace
from newshelf.sample.build import draw_sample
from newshelf.server.client import Client
from newshelf.server.ports import free_port, free_ports
from newshelf.server.state import read_keys
from tests.e2e.rollouts import pack_versions

HERE = Path(__file__).parent

SETTINGS = """
[finetune]
epochs = 2
target_epochs = 5

[scorer]
epochs = 3

[archive]
precision = "fp32"

[archive.encoder]
batch_size = 4
max_batch_delay_ms = 50

[archive.recommender]
batch_size = 4
max_batch_delay_ms = 50
"""


# Before pytest-xdist looks at the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group("torchserve"))


@pytest.fixture(scope="session")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Little training, batches that wait long enough to be filled on purpose, and float32, so
    that what is answered can be compared with what was trained digit by digit.
    """
    path = tmp_path_factory.mktemp("settings") / "small.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn catalogue."""
    folder = tmp_path_factory.mktemp("catalogs") / "shop"
    draw_sample(folder, products=120, shoppers=80)
    return folder


@pytest.fixture(scope="session")
def catalog(shop: Path) -> Catalog:
    return read_catalog(shop)


@pytest.fixture(scope="session")
def served(
    shop: Path, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, Served]]:
    """The whole way once, by the code behind ``./run serve``, on free ports."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The processes of one run share this folder: a second one must not come here.
        (tmp_path_factory.getbasetemp().parent / "served-by-one-process").mkdir()
    home = tmp_path_factory.mktemp("served")
    workspace = open_workspace(shop, override=home / "workspace", model_store=home / "store")
    console = Console(stderr=True)
    result = serve(
        workspace,
        settings_from(settings_file),
        make_jobs(console),
        console,
        ports=free_ports(),
        gateway_port=free_port(),
    )
    yield workspace, result
    result.state.end()


@pytest.fixture(scope="session")
def workspace(served: tuple[Workspace, Served]) -> Workspace:
    """Everything that was made on the way."""
    return served[0]


@pytest.fixture(scope="session")
def server(served: tuple[Workspace, Served]) -> Served:
    """The running server and its first answer; do not end it."""
    return served[1]


@pytest.fixture(scope="session")
def client(server: Served) -> Iterator[Client]:
    with Client(server.state) as opened:
        yield opened


@pytest.fixture(scope="session")
def http(server: Served) -> Iterator[httpx.Client]:
    """Plain HTTP on the inference port: the token, and nothing else of ours."""
    token = read_keys(server.state.key_file).inference
    with httpx.Client(
        base_url=server.state.inference_url, headers=token.header(), timeout=60, trust_env=False
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def embeddings(workspace: Workspace) -> dict[str, np.ndarray]:
    """The checkpoint's embedding ``(512,)`` of each product of the catalogue."""
    ids, rows = load_checkpoint(workspace.checkpoint).embeddings()
    return dict(zip(ids, rows.numpy(), strict=True))


@pytest.fixture(scope="session")
def packed(
    workspace: Workspace, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """The same trained model, and in the model store versions to roll out."""
    folder = tmp_path_factory.mktemp("versions")
    return pack_versions(workspace, settings_from(settings_file), folder)


@pytest.fixture
def copy_workspace(workspace: Workspace, tmp_path: Path) -> Callable[[], Workspace]:
    """A workspace of its own with the same trained and exported model, without a server."""

    def copy() -> Workspace:
        root = tmp_path / "workspace"
        shutil.copytree(workspace.root, root, ignore=shutil.ignore_patterns("server", ".lock"))
        return open_workspace(workspace.catalog, override=root, model_store=tmp_path / "store")

    return copy
