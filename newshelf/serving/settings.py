"""Settings of a worker, read from ``model-config.yaml``, and the files at an archive's root."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from newshelf.config import (
    Limits,
    Positive,
    Precision,
    RetrievalSettings,
    RuntimeKind,
    WorkerSettings,
)
from newshelf.errors import SettingsError, VersionMismatch
from newshelf.files import problems, read_json, write_json
from newshelf.serving.model_config import MODEL_CONFIG, worker_threads

TOKENIZER = "tokenizer.json"
VERSION = "version.json"
INDEX = "index"
GOLDEN = "golden.json"
MODEL_CARD = "model-card.json"


class ServingSettings(WorkerSettings, RetrievalSettings):
    """Settings of one worker, with what the settings file leaves open decided."""

    runtime: RuntimeKind = "onnxruntime"
    precision: Precision = "fp32"
    """Precision of the encoder; the scorer always computes in float32."""
    threads: Positive = 1
    decode_threads: Positive = 2
    limits: Limits = Limits()

    @classmethod
    def from_model_config(cls, config: Mapping[str, object] | None) -> "ServingSettings":
        """Read the sections ``serving`` and ``limits`` of a parsed ``model-config.yaml``.

        The other keys are TorchServe's. Thread counts of 0 divide this machine's cores among the
        workers.
        """
        config = config or {}
        section = config.get("serving") or {}
        if not isinstance(section, Mapping):
            raise SettingsError(f"{MODEL_CONFIG}: serving must be a mapping of keys")
        shared = ("threads", "decode_threads")
        decided = {name: worker_threads(config, name) for name in shared if section.get(name) == 0}
        table = {**section, **decided, "limits": config.get("limits") or {}}
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise SettingsError(f"{MODEL_CONFIG}: {problems(error)}") from error


def write_version(directory: Path, version: str) -> None:
    """Write ``version.json``, which names the checkpoint that the graphs were made from."""
    write_json(directory / VERSION, {"model_version": version})


def read_version(directory: Path) -> str:
    """Return the model's version."""
    path = directory / VERSION
    try:
        version = read_json(path)["model_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VersionMismatch(f"{path} does not name the model's version: export again") from error
    return str(version)
