"""The files that an unpacked archive holds at its root, and the model's version."""

from pathlib import Path

from newshelf.errors import VersionMismatch
from newshelf.files import read_json, write_json

__all__ = [
    "GOLDEN",
    "INDEX",
    "MODEL_CONFIG",
    "TOKENIZER",
    "VERSION",
    "read_version",
    "write_version",
]

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
