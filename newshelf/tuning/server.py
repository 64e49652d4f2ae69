"""A TorchServe of the tuner's own: on loopback, with tokens, one point at a time.

One server runs through all points, so that each is measured with the frontend's code already
compiled, as in a server that has run for a while.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from newshelf.errors import ServerError
from newshelf.pipeline.workspace import ROOT
from newshelf.server.client import Client
from newshelf.server.ports import free_ports
from newshelf.server.process import is_running
from newshelf.server.readiness import wait_until_ready
from newshelf.server.state import ServerState, read_state
from newshelf.server.torchserve import ServerPlan, start

__all__ = ["PointServer"]

_START_S = 60.0
_LOAD_S = 180.0
_PAUSE_S = 0.1


class PointServer:
    """Serves one archive after the other.

    Args:
        folder: for its logs, keys and archives; its content is removed.
        catalog: what it serves, for those who look which servers run.

    Example::

        with server.serving("encoder", archive, workers=2, question={"title": "ring"}) as state:
            ...
    """

    def __init__(self, folder: Path, catalog: Path) -> None:
        self._folder = folder
        self.store = folder / "store"
        """Where the archives must lie."""
        self._directory = folder / "server"
        self._catalog = catalog
        # One that a killed tuning has left.
        self._state = read_state(self._directory)
        self.end()
        shutil.rmtree(folder, ignore_errors=True)
        self.store.mkdir(parents=True)

    @contextmanager
    def serving(
        self, model: str, archive: Path, *, workers: int, question: dict[str, object]
    ) -> Iterator[ServerState]:
        """Load ``archive``, wait until it answers ``question``, and unload it in the end.

        Raises:
            ServerError: it cannot be loaded, or does not answer.
        """
        state = self._running()
        with Client(state) as client:
            try:
                client.register(model, archive.name, workers, timeout_s=_LOAD_S)
                wait_until_ready(state, {model: question}, timeout_s=_START_S)
                yield state
            except BaseException:
                # Whatever it is busy with (a worker that cannot load is tried again and
                # again), the next point starts with a new server.
                self.end()
                raise
            client.unregister(model, timeout_s=_START_S)

    def end(self) -> None:
        """Stop the server, if it runs."""
        if self._state is not None:
            self._state.end()
            self._state = None

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _running(self) -> ServerState:
        if self._state is None or not is_running(self._state.process):
            self.end()
            self._state = start(
                ServerPlan(
                    root=ROOT,
                    directory=self._directory,
                    model_store=self.store,
                    models={},
                    catalog=str(self._catalog),
                    ports=free_ports(),
                )
            )
            _wait(self._state)
        return self._state


def _wait(state: ServerState) -> None:
    """Until the management port answers; the key file is written before that."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if not is_running(state.process):
            break
        try:
            httpx.get(state.management_url, trust_env=False)
        except httpx.TransportError:
            time.sleep(_PAUSE_S)
            continue
        return
    log = state.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    state.end()
    raise ServerError(f"TorchServe did not start; the end of its log:\n{log}")
