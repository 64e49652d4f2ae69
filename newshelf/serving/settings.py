"""How a worker is set up, and how much one request may ask of it.

The files that an unpacked archive holds at its root, and the model's version.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newshelf.config import Limits
from newshelf.errors import SettingsError, VersionMismatch
from newshelf.files import problems, read_json, write_json
from newshelf.serving.runtimes.base import Kind, Precision, Provider

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_SHARED = ("threads", "decode_threads")


class ServingSettings(_Section):
    """The ``serving`` section of ``model-config.yaml``, and the limits beside it."""

    runtime: Kind = "onnxruntime"
    precision: Precision = "fp32"
    """Of the encoder's arithmetic; the scorer's is always float32."""
    provider: Provider = "cuda"
    """By what ONNX Runtime computes on a GPU; on the CPU it is not read."""
    threads: Positive = 1
    """Intra-op threads of this worker: cores divided by workers."""
    decode_threads: Positive = 2
    """That decode pictures; with one, the worker's own thread does it, between two forwards."""
    preload: bool = False
    """Load the model once, and fork the workers from the process that has it: theirs is the same
    memory. For workers of one thread on the CPU."""
    batch_size: Positive = 8
    """Requests that the model server puts together at most; what that many pictures need is
    made ready at loading."""
    max_forward_batch: Positive = 64
    """Products in one forward of the encoder; more are done in turns."""
    max_forward_pictures: Annotated[int, Field(ge=0)] = 0
    """Pictures in one forward of the encoder; with several decoding threads, the next ones are
    decoded while it runs. 0 takes 4 where those have a core to themselves, else all."""
    cache_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """What the embeddings of earlier requests may take, per worker; 0 keeps none."""
    retrieve: Positive = 400
    """Items that reach the scorer when a request does not name its candidates."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Least confidence of what is known beyond the columns, for filters and reasons."""
    limits: Limits = Limits()

    @classmethod
    def from_model_config(cls, config: Mapping[str, object] | None) -> "ServingSettings":
        """Read the sections ``serving`` and ``limits`` of a parsed ``model-config.yaml``.

        The other keys are the model server's. A number of threads of 0 divides the cores of this
        machine, which need not be the exporting one, among the ``maxWorkers``.

        Raises:
            SettingsError: an unknown key or a bad value in one of the two sections.
        """
        config = config or {}
        section = config.get("serving") or {}
        if not isinstance(section, Mapping):
            raise SettingsError("model-config.yaml: serving must be a mapping of keys")
        workers = config.get("maxWorkers") or 1
        share = max(1, len(os.sched_getaffinity(0)) // workers) if isinstance(workers, int) else 1
        shared = {name: share for name in _SHARED if section.get(name) == 0}
        table = {**section, **shared, "limits": config.get("limits") or {}}
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise SettingsError(f"model-config.yaml: {problems(error)}") from error


TOKENIZER = "tokenizer.json"
VERSION = "version.json"
INDEX = "index"
GOLDEN = "golden.json"
MODEL_CONFIG = "model-config.yaml"


def write_version(directory: Path, version: str) -> None:
    """Write ``version.json``, which names the checkpoint that the graphs were made from."""
    write_json(directory / VERSION, {"model_version": version})


def read_version(directory: Path) -> str:
    """The model's version.

    Raises:
        VersionMismatch: the file is missing or says nothing.
    """
    path = directory / VERSION
    try:
        version = read_json(path)["model_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VersionMismatch(f"{path} does not name the model's version: export again") from error
    return str(version)
