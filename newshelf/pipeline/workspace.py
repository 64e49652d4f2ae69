"""Folders of a catalogue's artifacts, their lock, and the servers that run from them."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from newshelf.config import Language, Settings
from newshelf.errors import ServerError, SetupError
from newshelf.server.state import ServerState, find_running, running_state

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
WORKSPACES = ROOT / ".newshelf"


class _Inside:
    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, workspace: "Workspace", owner: type["Workspace"]) -> Path:
        return workspace.root / self._path


@dataclass(frozen=True)
class Workspace:
    """The folders of one catalogue's artifacts."""

    root: Path
    catalog: Path
    """The user's catalogue, or the drawn sample inside ``root``."""
    is_sample: bool
    model_store: Path = ROOT / "model_store"
    start: Path | None = None
    """Checkpoint of an earlier version that training starts from."""

    features = _Inside("features")
    """Cached features of frozen towers."""
    training = _Inside("training")
    """State of a training run until its checkpoint is written, to resume it."""
    runs = _Inside("runs")
    """Losses and accuracies of training runs, for TensorBoard or MLflow."""
    checkpoint = _Inside("checkpoint")
    """The trained model."""
    evaluation = _Inside("evaluation")
    """The evaluation's report."""
    graphs = _Inside("graphs")
    """The exported graphs in float32, and the index."""
    precision = _Inside("precision")
    """The encoder in other precisions, and their speed and quality."""
    export = _Inside("export")
    """All of ``graphs`` and ``precision``, as links."""
    first = _Inside("first")
    """Names of the archives in float32 that are served until there are better ones."""
    archive = _Inside("archive")
    """Names of this workspace's archives in the model store."""
    drift = _Inside("drift")
    """The last report on drift."""
    server = _Inside("server")
    """TorchServe's working directory."""
    gateway = _Inside("gateway")
    """The gateway's keys, and the event store if it is SQLite; kept between starts."""
    api_keys = _Inside("gateway/keys.json")
    """The gateway's keys, hashed."""
    gateway_plan = _Inside("server/gateway.json")
    """Plan file of the gateway, which verbs read too."""
    rollout = _Inside("rollout")
    """Files of rollouts: the controller's plan, the promoted version, reports."""
    controller = _Inside("rollout/controller.json")
    """Plan file of the controller, which the verbs read too."""
    promoted = _Inside("rollout/promoted.json")
    """File of the promoted version."""
    shelf = _Inside("shelf")
    """Shelves of the model versions, which the workers read."""
    shelf_plan = _Inside("shelf.json")
    """Plan file of the shelf process, which the verbs read too."""
    retrain = _Inside("retrain")
    """Retrained versions, a folder each, and the reports of all retrainings."""

    def store_url(self, settings: Settings) -> str:
        """Return the URL of the event store."""
        return settings.store.url or f"sqlite:///{self.gateway / 'events.db'}"

    def pseudonym_key(self, settings: Settings) -> Path | None:
        """Return the key file of units' pseudonyms, if the settings want them."""
        if not settings.store.pseudonyms:
            return None
        return Path(settings.store.pseudonym_key or self.gateway / "pseudonym.key").absolute()

    @contextmanager
    def locked(self, console: Console) -> Iterator[None]:
        """Lock this workspace; wait for another run that holds the lock."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console.print(f"waiting for another run in {self.root} …")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def open_workspace(
    catalog: Path | None,
    *,
    override: Path | None = None,
    model_store: Path | None = None,
    home: Path = WORKSPACES,
    language: Language = "en",
) -> Workspace:
    """Return the workspace of ``catalog``, or of the drawn sample: ``override``, or in ``home``.

    Each ``language`` of the sample has its own.
    """
    store = (model_store or ROOT / "model_store").resolve()
    if catalog is None:
        name = "sample" if language == "en" else f"sample-{language}"
        root = (override or home / name).resolve()
        return Workspace(root, root / "sample", is_sample=True, model_store=store)
    folder = catalog.resolve()
    if not (folder.is_dir() or folder.is_file()):
        raise SetupError(f"--catalog {catalog} is not a folder or a file")
    root = (override or home / _name(folder)).resolve()
    return Workspace(root, folder, is_sample=False, model_store=store)


def _name(folder: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "catalog"
    return f"{slug}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def servers(catalog: Path | None, workspace: Path | None) -> list[ServerState]:
    """Return the running server of ``catalog`` or ``workspace``; all if both are None."""
    if catalog is None and workspace is None:
        return find_running(WORKSPACES)
    state = running_state(open_workspace(catalog, override=workspace).server)
    return [] if state is None else [state]


def only_server(catalog: Path | None, workspace: Path | None) -> ServerState:
    """Return the only running server."""
    found = servers(catalog, workspace)
    if not found:
        raise ServerError("no server is running; ./run serve --detach starts one")
    if len(found) > 1:
        catalogs = ", ".join(state.catalog for state in found)
        raise ServerError(f"several servers run ({catalogs}); select one with --catalog")
    return found[0]
