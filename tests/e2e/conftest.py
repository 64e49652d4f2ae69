"""Small but truly trained models, and a real TorchServe that most e2e tests share.

Tests of one group run in one process: the README's, those that roll versions out, all others.
The model is trained once for all processes.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from filelock import FileLock
from rich.console import Console

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.cli.pipeline import make_jobs, settings_from
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.pipeline.serve import Served, serve
from newshelf.pipeline.stages import bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import Workspace, open_workspace
from newshelf.sample.build import draw_sample
from newshelf.server.client import Client
from newshelf.server.ports import free_port, free_ports
from newshelf.server.state import read_keys
from tests.e2e.newcomer import Newcomer
from tests.e2e.rollouts import link_or_copy, pack_versions
from tests.e2e.towers import save_towers

SETTINGS = """
[gateway.shop]
enabled = "always"
views = true

[gateway.console]
enabled = "always"

[finetune]
epochs = 2

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


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of all processes of the test run."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def settings_file(shared: Path) -> Path:
    """Small towers and little training, batches that wait long enough to be filled on purpose,
    and float32, so that what is answered can be compared with what was trained digit by digit.
    """
    folder = shared / "settings"
    path = folder / "small.toml"
    with FileLock(f"{folder}.lock"):
        if not path.exists():
            folder.mkdir()
            path.write_text(save_towers(folder) + SETTINGS)
    return path


@pytest.fixture(scope="session")
def shop(shared: Path) -> Path:
    """A small drawn catalogue."""
    folder = shared / "shop"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            draw_sample(folder, products=120, shoppers=80)
    return folder


@pytest.fixture(scope="session")
def catalog(shop: Path) -> Catalog:
    return read_catalog(shop)


@pytest.fixture(scope="session")
def trained(shop: Path, settings_file: Path, shared: Path) -> Workspace:
    """Trained, exported and archived by the first process that needs it; do not change it."""
    workspace = open_workspace(shop, override=shared / "trained", model_store=shared / "store")
    console = Console(stderr=True)
    stages = plan_stages(workspace, settings_from(settings_file), make_jobs(console))
    with FileLock(f"{workspace.root}.lock"):
        bring_up_to_date(stages.up_to("archive"), console)
    return workspace


@pytest.fixture(scope="session")
def workspace(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """This process's copy, with everything that was made."""
    root = tmp_path_factory.mktemp("served") / "workspace"
    return copy_of(trained, root, trained.model_store)


def copy_of(source: Workspace, root: Path, model_store: Path) -> Workspace:
    shutil.copytree(source.root, root, copy_function=link_or_copy)
    return open_workspace(source.catalog, override=root, model_store=model_store)


@pytest.fixture(scope="session")
def server(
    workspace: Workspace, settings_file: Path, shared: Path, worker_id: str
) -> Iterator[Served]:
    """The running server and its first answer, by the code behind ``./run serve``, on free
    ports; do not end it.
    """
    if worker_id != "master":
        # A second process must not come here.
        (shared / "served-by-one-process").mkdir()
    console = Console(stderr=True)
    served = serve(
        workspace,
        settings_from(settings_file),
        make_jobs(console),
        console,
        ports=free_ports(),
        gateway_port=free_port(),
    )
    yield served
    served.state.end()


@pytest.fixture(scope="session")
def client(server: Served) -> Iterator[Client]:
    with Client(server.state) as opened:
        yield opened


@pytest.fixture(scope="session")
def http(server: Served) -> Iterator[httpx.Client]:
    """Plain HTTP on the inference port: the token, and nothing else of ours."""

    def authorize(request: httpx.Request) -> httpx.Request:
        # A restarted TorchServe has new tokens.
        request.headers.setdefault(
            "Authorization", read_keys(server.state.key_file).inference.header()["Authorization"]
        )
        return request

    with httpx.Client(
        base_url=server.state.inference_url, auth=authorize, timeout=60, trust_env=False
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def embeddings(workspace: Workspace) -> dict[str, np.ndarray]:
    """The checkpoint's embedding ``(512,)`` of each product of the catalogue."""
    ids, rows = load_checkpoint(workspace.checkpoint).embeddings()
    return dict(zip(ids, rows.numpy(), strict=True))


@pytest.fixture(scope="session")
def packed(
    trained: Workspace, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """The same trained model, and in the model store versions to roll out."""
    folder = tmp_path_factory.mktemp("versions")
    return pack_versions(trained, settings_from(settings_file), folder)


@pytest.fixture
def copy_workspace(trained: Workspace, tmp_path: Path) -> Callable[[], Workspace]:
    """Copies the trained and exported model to a workspace with an empty model store."""
    return lambda: copy_of(trained, tmp_path / "workspace", tmp_path / "store")


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Reads README and tutorials, in a clone of this repository."""
    newcomer = Newcomer.clone(tmp_path_factory.mktemp("clone"))
    yield newcomer
    newcomer.leave()
