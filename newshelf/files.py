"""Write aside and rename: a killed process leaves either the old or the new.

What pydantic checks: JSON files of one model, and what is wrong with a value, in a line.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from newshelf.errors import SettingsError


@contextmanager
def write_aside(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it onto ``path`` on success.

    Until then only its owner can read it; then ``mode`` says who can.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(mode)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def directory_aside(path: Path) -> Iterator[Path]:
    """Yield an empty directory next to ``path`` that replaces ``path`` on success.

    A directory cannot be renamed onto a full one, so the old one is renamed first. A
    process killed between the two renames leaves the old one under ``.NAME.old``, and
    no ``path``: the next run finds nothing and builds it again, never a mixture.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = path.parent / f".{path.name}.old"
    try:
        yield aside
        aside.chmod(0o755)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        aside.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Parse a UTF-8 JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, aside and renamed."""
    with write_aside(path) as aside:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        aside.write_text(text + "\n", encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, aside and renamed; its owner alone can read it."""
    with write_aside(path, mode=0o600) as aside:
        aside.write_text(text, encoding="utf-8")


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
