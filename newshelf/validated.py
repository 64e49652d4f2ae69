"""What pydantic checks: JSON files of one model, and what is wrong with a value, in a line."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from newshelf.errors import SettingsError

__all__ = ["problems", "read_model"]

_Model = TypeVar("_Model", bound=BaseModel)


def problems(error: ValidationError, whole: str = "") -> str:
    """``place: reason`` of everything that was found, without the values: one may be a secret.

    Args:
        error: of pydantic.
        whole: what the place is called when nothing in it, but all of it, is wrong.
    """
    found = []
    for one in error.errors(include_url=False, include_input=False):
        place = ".".join(map(str, one["loc"])) or whole
        found.append(f"{place}: {one['msg']}" if place else one["msg"])
    return "; ".join(found)


def read_model(path: Path, model: type[_Model], what: str) -> _Model:
    """Read a JSON file of ``model``.

    Args:
        path: the file.
        model: what it holds.
        what: what such a file is called: "plan of a gateway".

    Raises:
        SettingsError: it cannot be read, or is no such thing; with file, place and reason.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}, a {what}, cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(f"{path} is no {what}: {problems(error, 'the file')}") from error
