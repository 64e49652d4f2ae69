"""The files that an unpacked archive holds at its root, and the model's version."""

from pathlib import Path

from pydantic import ValidationError

from newshelf.errors import VersionMismatch, WeightsError
from newshelf.files import read_json, write_json
from newshelf.nn.spec import ModelSpec

__all__ = ["INDEX", "MODEL", "TOKENIZER", "VERSION", "read_spec", "read_version", "write_version"]

MODEL = "model.json"
TOKENIZER = "tokenizer.json"
VERSION = "version.json"
INDEX = "index"


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


def read_spec(directory: Path) -> ModelSpec:
    """The model's description.

    Raises:
        WeightsError: it is missing, or of another format.
    """
    path = directory / MODEL
    try:
        return ModelSpec.model_validate(read_json(path))
    except OSError as error:
        raise WeightsError(f"{path} is missing: the archive was not built by export") from error
    except (ValidationError, ValueError) as error:
        raise WeightsError(f"{path} is not of this format: {error}") from error
