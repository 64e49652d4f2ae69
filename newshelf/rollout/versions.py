"""Versions of the recommender: loading by TorchServe's management API, and the promoted version.

Every method is idempotent, so that it may be repeated after a crash. The promoted version is a
file in the workspace that survives a restart. Without it the workspace's own build is served;
after the first promotion only rollouts change what is served.
"""

import json
import re
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import httpx
from pydantic import ValidationError

from newshelf.errors import RolloutError, ServerError, SetupError
from newshelf.files import StrictModel, directory_aside, write_json
from newshelf.server.client import Client
from newshelf.server.process import is_running
from newshelf.server.state import read_state
from newshelf.server.torchserve import keep_loading

MODEL = "recommender"
FIRST = "-fp32"
"""End of the versions in float32 that are served until the encoder's precision is found."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INDEX = "index/index.json"
_CODE = ("newshelf/", "MAR-INF/")
"""Members of an archive that are not unpacked: its readers run their own code."""
ARCHIVES = ".archives"
"""Folder of the unpacked archives, in the folder of the shelves."""
_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 20.0
"""For TorchServe to unpack an archive; its workers load it afterwards."""
_PATIENCE, _PAUSE_S = 5, 0.2
"""Retries of a request that a full queue refused."""
_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


def find_archive(model_store: Path, version: str) -> Path:
    """Return the archive of a version of the recommender, or raise ``RolloutError``."""
    path = model_store / f"{MODEL}-{version}.mar"
    # Versions are part of file names and URLs.
    if _NAME.fullmatch(version) and path.is_file():
        return path
    there = sorted(one.stem.removeprefix(f"{MODEL}-") for one in model_store.glob(f"{MODEL}-*.mar"))
    raise RolloutError(
        f"version {version} is not in the model store: there is no {path.name} in {model_store} "
        f"(there is {', '.join(there) or 'no recommender at all'}); ./run archive makes one"
    )


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive into ``folder``, unless that exists."""
    if not folder.is_dir():
        try:
            with ZipFile(archive) as packed, directory_aside(folder) as aside:
                names = [name for name in packed.namelist() if not name.startswith(_CODE)]
                packed.extractall(aside, names)
        except (OSError, BadZipFile) as error:
            raise SetupError(f"{archive} cannot be unpacked: {error}") from error
    return folder


class TorchServeVersions:
    """Versions in one running TorchServe. Every method may raise ``ServerError``.

    ``directory`` has the state and the keys. Every version must answer ``question`` with products.
    """

    def __init__(self, directory: Path, model_store: Path, question: Mapping[str, object]) -> None:
        self._directory = directory
        self._model_store = model_store
        self._question = dict(question)
        self._index_versions: dict[str, str] = {}

    def default(self) -> str:
        """Return the version that answers requests without a version."""
        with self._client() as client:
            return str(client.describe(MODEL)[0]["modelVersion"])

    def loaded(self) -> Set[str]:
        """Return the loaded versions, ready or not."""
        with self._client() as client:
            return {str(one["modelVersion"]) for one in client.describe(MODEL, "all")}

    def load(self, version: str) -> None:
        """Start to load a version next to the default one, with the same number of workers."""
        archive = find_archive(self._model_store, version)
        if version in self.loaded():
            return
        with self._client() as client:
            workers = len(client.describe(MODEL)[0]["workers"])
            client.register(
                MODEL, archive.name, max(1, workers), timeout_s=_LOAD_TIMEOUT_S, wait=False
            )

    def obstacle(self, version: str, *, requests: int = 1) -> str | None:
        """Send real requests, which warm up a new version; return why it is not ready, or None."""
        with self._client() as client:
            try:
                (status,) = client.describe(MODEL, version)
            except ServerError:
                return f"{version} is not loaded"
            ready = [one for one in status["workers"] if one["status"] == "READY"]
            # TorchServe replaces a killed worker; the others answer.
            if not ready:
                return f"no worker of {version} is ready"
            answers = (self._wrong(client, version) for _ in range(requests))
            return next((wrong for wrong in answers if wrong), None)

    def set_default(self, version: str) -> None:
        """Let a version answer requests without a version, also after TorchServe starts again."""
        if self.default() != version:
            with self._client() as client:
                client.set_default(MODEL, version)
        archive = find_archive(self._model_store, version)
        keep_loading(self._directory / "config.properties", MODEL, archive.name)

    def unload(self, version: str) -> None:
        """Unload a version that is not the default. Its requests must be complete."""
        if version in self.loaded():
            with self._client() as client:
                client.unregister(MODEL, version=version, timeout_s=_TIMEOUT_S)

    def _wrong(self, client: Client, version: str) -> str | None:
        """Send one request. Return why the answer is wrong, or None."""
        try:
            response = client.predict(MODEL, json=self._question, version=version)
            for _ in range(_PATIENCE):
                if response.status_code not in _BUSY:
                    break
                time.sleep(_PAUSE_S)
                response = client.predict(MODEL, json=self._question, version=version)
        except httpx.TransportError as error:
            return f"{version} did not answer: {error!r}"
        if response.status_code != httpx.codes.OK:
            return f"{version} answered {response.status_code}: {response.text[:200]}"
        answer: dict[str, Any] = response.json()
        if not answer.get("items"):
            return f"{version} answered without a product"
        wanted = {"model_version": version, "index_version": self._index_version(version)}
        for name, value in wanted.items():
            # Behind a "+", a worker tells the live shelf's last change.
            if str(answer.get(name)).partition("+")[0] != value:
                return f"{version} answered with {name} {answer.get(name)}, not {value}"
        return None

    def _index_version(self, version: str) -> str:
        """Return the index version of the archive, which answers must have."""
        if version not in self._index_versions:
            path = find_archive(self._model_store, version)
            try:
                with ZipFile(path) as archive:
                    table = json.loads(archive.read(_INDEX))
            except (BadZipFile, KeyError, ValueError) as error:
                raise RolloutError(f"{path} is no archive with an index: {error}") from error
            self._index_versions[version] = str(table["index_version"])
        return self._index_versions[version]

    def _client(self) -> Client:
        state = read_state(self._directory)
        if state is None or not is_running(state.process):
            raise ServerError("TorchServe is not running; ./run serve starts it")
        return Client(state, timeout_s=_TIMEOUT_S)


class PromotedVersion(StrictModel):
    """The version that is served instead of the workspace's own build."""

    version: str
    rollout: str
    before: str | None = None
    """The version it replaced; None after a rollback to that one."""


@dataclass(frozen=True)
class PromotedFile:
    """The file of the promoted version, written atomically."""

    path: Path

    def read(self) -> PromotedVersion | None:
        """Return the promoted version, None without one; ``ServerError`` if it is damaged."""
        try:
            return PromotedVersion.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ServerError(
                f"{self.path} does not say which version is promoted ({error}); remove it to serve "
                "what the workspace has made"
            ) from error

    def promote(self, version: str, rollout: str, before: str) -> None:
        """Let the next starts serve ``version``."""
        now = self.read()
        if now is None or (now.version, now.rollout) != (version, rollout):
            self._write(PromotedVersion(version=version, rollout=rollout, before=before))

    def take_back(self, rollout: str) -> None:
        """Undo the promotion by ``rollout``, if it is the last and not undone yet."""
        now = self.read()
        if now is not None and now.rollout == rollout and now.before is not None:
            self._write(PromotedVersion(version=now.before, rollout=rollout))

    def _write(self, promoted: PromotedVersion) -> None:
        write_json(self.path, promoted.model_dump(mode="json"))
