"""The tuner's TorchServe, and an archive for each point.

One server serves all points in turn, so that the frontend's code is already compiled for each.
"""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import yaml

from loadtest.tuning.load import ModelName
from loadtest.tuning.points import Arithmetic, Point, with_point
from newshelf.config import Settings
from newshelf.errors import ServerError
from newshelf.pipeline.workspace import ROOT
from newshelf.server.client import Client
from newshelf.server.ports import free_ports
from newshelf.server.process import is_running, wait_for
from newshelf.server.state import ServerState, read_state
from newshelf.server.torchserve import TorchServePlan, start_torchserve, wait_until_ready
from newshelf.serving.model_config import MODEL_CONFIG

_START_S = 60.0
_LOAD_S = 180.0


class PointServer:
    """Serves one archive after the other; the content of ``folder`` is deleted."""

    def __init__(self, folder: Path, catalog: Path) -> None:
        self._folder = folder
        self.store = folder / "store"
        """Folder of the archives."""
        self._directory = folder / "server"
        self._catalog = catalog
        # Of a tuner that was killed.
        self._state = read_state(self._directory)
        self.end()
        shutil.rmtree(folder, ignore_errors=True)
        self.store.mkdir(parents=True)

    @contextmanager
    def serving(
        self, model: str, archive: Path, workers: int, request: dict[str, object]
    ) -> Iterator[ServerState]:
        """Load ``archive``, wait until it answers ``request``, and unload it afterwards."""
        state = self._running()
        with Client(state) as client:
            try:
                client.register(model, archive.name, workers, timeout_s=_LOAD_S)
                wait_until_ready(state, {model: request}, timeout_s=_START_S)
                yield state
            except BaseException:
                # It may be busy, for example restarting a worker that cannot load: the next
                # point gets a new server.
                self.end()
                raise
            client.unregister(model, timeout_s=_START_S)

    def end(self) -> None:
        """Stop the server if it runs."""
        if self._state is not None:
            self._state.end()
            self._state = None

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _running(self) -> ServerState:
        if self._state is None or not is_running(self._state.process):
            self.end()
            self._state = start_torchserve(
                TorchServePlan(
                    root=ROOT,
                    directory=self._directory,
                    model_store=self.store,
                    models={},
                    catalog=str(self._catalog),
                    ports=free_ports(),
                )
            )
            state = self._state
            # The key file is written before the management port answers.
            answers = partial(_answers, state.management_url)
            try:
                wait_for(answers, state.process, "TorchServe", _START_S, state.log)
            except ServerError:
                self.end()
                raise
        return self._state


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        httpx.get(url, trust_env=False)
        return True
    return False


@dataclass(frozen=True)
class ExportTools:
    """Functions of ``export``, which newshelf does not import."""

    archive: Callable[[Settings, Path], list[Path]]
    """Writes an archive of each model into a folder."""
    model_config: Callable[[Settings, ModelName], str]
    """Returns the ``model-config.yaml`` of a model, for these settings."""


@dataclass
class PointArchives:
    """Makes archives of a model; packs the graphs once per arithmetic."""

    model: ModelName
    settings: Settings
    tools: ExportTools
    folder: Path
    """An existing folder."""
    _packed: dict[Arithmetic, Path] = field(default_factory=dict)

    def make(self, point: Point) -> Path:
        """Write the archive of ``point``, in place of the last one."""
        settings = with_point(self.settings, self.model, point)
        path = self.folder / f"{self.model}-point.mar"
        table = yaml.safe_load(self.tools.model_config(settings, self.model))
        # The load repeats, and must be computed.
        table["serving"]["cache_bytes"] = 0
        config = yaml.safe_dump(table, sort_keys=False)
        _replace_config(self._pack(settings, point.computing.arithmetic), path, config)
        return path

    def _pack(self, settings: Settings, arithmetic: Arithmetic) -> Path:
        if arithmetic not in self._packed:
            store = self.folder / str(arithmetic).replace(" ", "-")
            paths = self.tools.archive(settings, store)
            [self._packed[arithmetic]] = [
                path for path in paths if path.name.startswith(f"{self.model}-")
            ]
        return self._packed[arithmetic]


def _replace_config(source: Path, target: Path, config: str) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            if member.filename == MODEL_CONFIG:
                new.writestr(MODEL_CONFIG, config)
            else:
                new.writestr(member, old.read(member))
