"""Embeddings of all products of a catalogue, in Parquet files of a thousand products each.

A file's name has a digest of the model and of what it reads of the products, so a run that was
interrupted continues with the files that are missing.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import parquet

from newshelf.errors import SetupError
from newshelf.files import file_stamp, write_aside, write_json
from newshelf.serving.model_config import MODEL_CONFIG
from newshelf.shelf.model import ShelfModel
from newshelf.store.items import StoredItem, read_picture_file

_BATCH = 64
"""Products that are encoded together."""

Shard = tuple[str, Sequence[StoredItem]]
"""Name of a file, and its products."""


class CatalogEncoder:
    """The encoder of an unpacked archive; its files go to the folder ``output``."""

    def __init__(self, archive: Path, output: Path, threads: int = 1) -> None:
        self._model, self._output = ShelfModel(archive, threads), output
        self._config = (archive / MODEL_CONFIG).read_bytes()

    def split(self, products: Iterable[StoredItem], rows: int = 1_000) -> Iterator[Shard]:
        """Yield products in shards; pictures count by place, inode and time of change."""
        left = iter(products)
        for number, items in enumerate(iter(lambda: [*islice(left, rows)], [])):
            digest = hashlib.sha256(self._model.version.encode() + self._config)
            for item in items:
                stamp = file_stamp(Path(item.picture[5:]) if item.picture else None)
                digest.update(f"{item.id} {self._model.reads(item)} {stamp}\n".encode())
            yield f"part-{number:06}-{digest.hexdigest()[:16]}.parquet", items

    def __call__(self, row: Mapping[str, Shard]) -> dict[str, int]:
        """Encode the shard in a row of a Ray dataset."""
        return {"count": self.write(row["item"])}

    def write(self, shard: Shard) -> int:
        """Encode a shard, write it with its problems, and return the number of its products."""
        name, items = shard
        read = partial(read_picture_file, max_bytes=self._model.limits.max_picture_bytes)
        batches = (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
        rows = [row for batch in batches for row in self._model.encode(batch, read)]
        good = [row for row in rows if row.embedding is not None]
        columns = {
            "id": pa.array([row.item_id for row in good], pa.string()),
            "embedding": pa.array([row.embedding for row in good], pa.list_(pa.float32())),
        }
        problems = orjson.dumps({row.item_id: row.problem for row in rows if row.problem})
        with write_aside(self._output / name) as aside:
            parquet.write_table(pa.table(columns, metadata={"problems": problems}), aside)
        return len(items)

    def write_manifest(self, names: Iterable[str], refused: Mapping[str, str]) -> dict[str, Any]:
        """Write what complete shards hold, return it, and remove the shards of other runs."""
        problems, files = dict(refused), dict[str, int]()
        for name in names:
            footer = parquet.read_metadata(self._output / name)
            files[name] = footer.num_rows
            problems |= orjson.loads(footer.metadata[b"problems"])
        manifest = {
            "model_version": self._model.version,
            "rows": sum(files.values()),
            "files": files,
            "problems": problems,
        }
        write_json(self._output / "manifest.json", manifest)
        for path in (*self._output.glob("part-*"), *self._output.glob(".part-*")):
            if path.name not in files:
                path.unlink()
        return manifest


def encode_by_ray(
    shards: Sequence[Shard], archive: Path, output: Path, address: str | None, threads: int = 1
) -> Iterator[int]:
    """Write shards by actors of ``threads`` cores each; yield their numbers of products.

    Without an ``address``, a cluster of this machine is started, and stopped at the end.
    """
    # Without statistics to its makers, and lines next to the progress bar.
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_LOG_LEVEL": "ERROR",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    if address is None:
        # Ray then listens on 127.0.0.1 instead of all interfaces, and to this command alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray.data  # noqa: PLC0415 - servers do without
    except ImportError as error:
        raise SetupError(
            "Ray is not installed on servers: install the packages of requirements.lock, or of "
            "deploy/images/cuda.lock"
        ) from error
    with TemporaryDirectory(prefix="newshelf-ray-") as folder:
        cores = len(os.sched_getaffinity(0))
        own = {"num_cpus": cores, "include_dashboard": False, "_temp_dir": folder}
        quiet = {"logging_level": "error", "log_to_driver": False}
        try:
            ray.init(address or "local", **quiet, **({} if address else own))
            ray.data.DataContext.get_current().enable_progress_bars = False
            actors = int(ray.cluster_resources()["CPU"]) // threads
            written = ray.data.from_items([*shards], override_num_blocks=len(shards)).map(
                CatalogEncoder,
                fn_constructor_args=(archive, output, threads),
                compute=ray.data.ActorPoolStrategy(size=max(1, min(actors, len(shards)))),
                num_cpus=threads,
            )
            for row in written.iter_rows():
                yield row["count"]
        except (ConnectionError, ray.exceptions.RayError) as error:
            raise SetupError(f"Ray failed: {error.__cause__ or error}") from error
        finally:
            ray.shutdown()
