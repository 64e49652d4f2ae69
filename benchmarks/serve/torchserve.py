"""Newshelf's server as a contender, with any layout and settings of TorchServe."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks.processes import run_module
from benchmarks.serve.contender import JPEG, Endpoint
from newshelf.config import Precision, RuntimeKind, Settings
from newshelf.files import directory_aside
from newshelf.pipeline.workspace import ROOT
from newshelf.server.ports import free_ports
from newshelf.server.process import wait_for
from newshelf.server.state import ServerState, read_keys
from newshelf.server.torchserve import TorchServePlan, archives, read_properties, start_torchserve
from newshelf.serving.model_config import MODEL_CONFIG

if TYPE_CHECKING:
    # The GPU's benchmark runs where its libraries are not.
    from benchmarks.serve.models import Model

_BUILDER = "benchmarks.serve.build_models"
_START_S = 60.0


@dataclass(frozen=True)
class Layout:
    """Workers, threads and batching of one model."""

    workers: int
    threads: int
    batch_size: int
    delay_ms: int = 1
    decode_threads: int = 1
    queue_size: int = 256
    """More than there are clients, so that none is rejected."""
    cache_bytes: int = 0
    """Cache of embeddings, per worker."""
    archive: Mapping[str, object] = field(default_factory=dict)
    """Other keys of the section ``archive``: runtime and precision."""

    def words(self) -> str:
        """Return the layout in words."""
        words = [
            f"{self.workers} × {self.threads} threads",
            f"batch ≤ {self.batch_size}, wait ≤ {self.delay_ms} ms",
            *(f"{key} {value}" for key, value in self.archive.items()),
        ]
        if self.decode_threads > 1:
            words.append(f"{self.decode_threads} decode")
        if self.cache_bytes:
            words.append(f"cache of {self.cache_bytes / 1e6:.0f} MB")
        return ", ".join(words)

    def slug(self) -> str:
        """Return a name for a folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.words().lower()).strip("-")

    def settings(self, base: Settings, model: str) -> Settings:
        """Return ``base`` with this layout for ``model``.

        Raises:
            pydantic.ValidationError: an unknown key in ``archive``.
        """
        table = base.model_dump(mode="json")
        table["archive"] |= self.archive
        table["archive"][model] |= {
            "workers": self.workers,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "max_batch_delay_ms": self.delay_ms,
            "decode_threads": self.decode_threads,
            "queue_size": self.queue_size,
            "cache_bytes": self.cache_bytes,
        }
        return Settings.model_validate(table)


def write_archives(model: "Model", layout: Layout, name: str = "encoder") -> dict[str, Path]:
    """Write the archives with ``layout`` for the model ``name``, and return their paths.

    Raises:
        BenchmarkError: they cannot be written.
    """
    store = model.workspace.root.parent / "stores" / layout.slug()
    shutil.rmtree(store, ignore_errors=True)
    settings = layout.settings(model.settings, name).model_dump_json()
    written = run_module(
        _BUILDER, "archive", str(model.workspace.export), str(store), given=settings
    )
    return archives([Path(path) for path in json.loads(written)])


def unpacked(mar: Path) -> Path:
    """Unpack an archive next to its store, as TorchServe does, and return the folder."""
    folder = mar.parents[1] / "unpacked" / mar.parent.name / mar.stem
    with directory_aside(folder) as aside, zipfile.ZipFile(mar) as file:
        file.extractall(aside)
    return folder


def served_by(folder: Path) -> tuple[RuntimeKind, Precision]:
    """Return runtime and precision of an unpacked archive."""
    text = (folder / MODEL_CONFIG).read_text(encoding="utf-8")
    serving = yaml.safe_load(text)["serving"]
    return serving["runtime"], serving["precision"]


def variant_root(folder: Path, properties: Mapping[str, str]) -> Path:
    """Return a folder that TorchServe can use as the repository, with changed settings."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {**read_properties(ROOT / "config.properties"), **properties}
    lines = [f"{key}={value}\n" for key, value in table.items()]
    (folder / "config.properties").write_text("".join(lines), encoding="utf-8")
    deploy = folder / "deploy"
    deploy.unlink(missing_ok=True)
    deploy.symlink_to(ROOT / "deploy", target_is_directory=True)
    return folder


@contextmanager
def serve_archives(
    models: Mapping[str, Path], folder: Path, properties: Mapping[str, str] | None = None
) -> Iterator[ServerState]:
    """Start TorchServe with archives of one folder; it need not be ready yet.

    Args:
        models: the archive of each model.
        folder: TorchServe's working directory.
        properties: changes to ``config.properties``.

    Raises:
        ServerError: it did not write its keys.
    """
    root = variant_root(folder / "root", properties) if properties else ROOT
    store = next(iter(models.values())).parent
    directory = folder / "server"
    state = start_torchserve(
        TorchServePlan(root, directory, store, models, "benchmark", free_ports())
    )
    try:
        keys = state.key_file

        def written() -> bool:
            return keys.exists() and keys.stat().st_size > 0

        wait_for(written, state.process, "TorchServe", _START_S, state.log)
        yield state
    finally:
        state.end()


@contextmanager
def serve_model(
    name: str,
    mar: Path,
    folder: Path,
    headers: Mapping[str, str],
    properties: Mapping[str, str] | None = None,
) -> Iterator[Endpoint]:
    """Serve one archive; see ``serve_archives``."""
    with serve_archives({name: mar}, folder, properties) as state:
        token = read_keys(state.key_file).inference.header()
        path = f"/predictions/{name}"
        yield Endpoint(state.inference_url, path, state.process, {**headers, **token})


@dataclass(frozen=True)
class Newshelf:
    """The encoder as ``./run serve`` serves it; created by ``newshelf_encoder``."""

    name: str
    archive: Path
    layout: str
    work: Path

    def run(self) -> AbstractContextManager[Endpoint]:
        """See ``Contender.run``."""
        return serve_model("encoder", self.archive, self.work / "servers" / "newshelf", JPEG)


def newshelf_encoder(
    model: "Model", layout: Layout, work: Path, name: str = "Newshelf"
) -> Newshelf:
    """Write the archive with ``layout`` now, not within a turn, and return the contender.

    Args:
        model: the exported model.
        layout: workers, threads and batching.
        work: the benchmark's folder.
        name: in tables.
    """
    mar = write_archives(model, layout)["encoder"]
    words = f"{layout.words()}, {' '.join(served_by(unpacked(mar)))}"
    return Newshelf(name, mar, words, work)
