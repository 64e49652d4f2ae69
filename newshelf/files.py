"""Files and folders that are replaced atomically, JSON files that pydantic checks, templates."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from newshelf.errors import SettingsError

if TYPE_CHECKING:
    from jinja2 import Environment

_KEY_BYTES = 32


@contextmanager
def write_aside(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` on success.

    Only its owner can read it until then; ``mode`` applies afterwards.
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
    """Yield an empty directory in the same folder; it replaces ``path`` on success.

    A directory cannot be renamed onto a non-empty one, so the old one is renamed first. If the
    process is killed in between, the old one is left as ``.NAME.old`` and there is no ``path``:
    readers find nothing, never a mixture.
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
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` atomically by ``value`` as indented JSON."""
    with write_aside(path) as aside:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        aside.write_text(text + "\n", encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` atomically by ``text``, readable by its owner only."""
    with write_aside(path, mode=0o600) as aside:
        aside.write_text(text, encoding="utf-8")


def secret_key(path: Path) -> bytes:
    """Return the 32 bytes of a key, whose file is created if it is missing."""
    try:
        # A mounted key may be in a folder that cannot be written.
        if not path.exists():
            with FileLock(path.with_name(f".{path.name}.lock")):
                if not path.exists():
                    write_private(path, secrets.token_hex(_KEY_BYTES) + "\n")
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"the key {path} cannot be used: {error}") from error
    if len(key) != _KEY_BYTES:
        raise SettingsError(f"{path} is no key of {_KEY_BYTES} bytes")
    return key


def file_stamp(path: Path | None) -> tuple[int, int]:
    """Return a value that changes with the file; zeros without one."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        status = None
    return (0, 0) if status is None else (status.st_mtime_ns, status.st_ino)


class StrictModel(BaseModel):
    """Base of settings and plans: immutable, without unknown fields, with finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Model = TypeVar("_Model", bound=BaseModel)


def field_path(place: Sequence[str | int]) -> str:
    """Return a place of pydantic's as a path: ``("ramp", 0, "percent")`` → ``ramp[0].percent``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def problems(error: ValidationError, whole: str = "") -> str:
    """Return all problems as ``place: reason``, without values, which may be secrets.

    ``whole`` is the place of a problem that concerns the whole value.
    """
    found = []
    for one in error.errors(include_url=False, include_input=False):
        place = ".".join(map(str, one["loc"])) or whole
        found.append(f"{place}: {one['msg']}" if place else one["msg"])
    return "; ".join(found)


def read_model(path: Path, model: type[_Model], kind: str) -> _Model:
    """Read a JSON file; ``kind`` is in words, such as "plan of a gateway".

    ``SettingsError`` has file, place and reason.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}, a {kind}, cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(f"{path} is no {kind}: {problems(error, 'the file')}") from error


def open_templates(package: str) -> "Environment":
    """Return the templates in a package's folder ``templates``; those of HTML escape all values."""
    # Most processes do without.
    from jinja2 import (  # noqa: PLC0415
        Environment,
        PackageLoader,
        StrictUndefined,
        select_autoescape,
    )

    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
