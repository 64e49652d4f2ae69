"""A stage: a folder of outputs with a stamp of its inputs, and its rebuild when they change."""

import ast
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from newshelf.catalog.table_files import find_table
from newshelf.errors import SetupError
from newshelf.files import directory_aside, read_json, write_json

Component = Mapping[str, str]
"""Parts with their values or digests, such as ``{"items.parquet": "#3f…"}``."""

DIGEST = "#"
"""Prefix of a digest, to tell it from a readable value."""

_TABLES = ("items", "events", "baskets")
_PICTURES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def catalog_files(catalog: Path) -> Component:
    """Return digests of the tables' bytes, and of the paths, sizes and mtimes of pictures."""
    found = (find_table(catalog, table) for table in _TABLES)
    parts = {path.name: file_digest(path) for path in found if path is not None}
    folder = catalog.parent if catalog.is_file() else catalog
    pictures = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICTURES:
            pictures.update(f"{path.relative_to(folder)}\0{_stat(path)}\n".encode())
    return parts | {"pictures": _short(pictures)}


def files_by_stat(path: Path) -> Component:
    """Return size and mtime of a file, or of every file of a folder; empty if absent."""
    if path.is_file():
        return {str(path): _stat(path)}
    return {str(inner): _stat(inner) for inner in sorted(path.rglob("*")) if inner.is_file()}


def sources(root: Path, patterns: Iterable[str]) -> Component:
    """Return digests of the files that match; Python's are without comments and docstrings."""
    found: dict[str, str] = {}
    for pattern in patterns:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
        if not paths:
            raise SetupError(f"no source matches {pattern} in {root}")
        for path in paths:
            is_code = path.suffix == ".py"
            digest = _code_digest(path) if is_code else file_digest(path)
            found[path.relative_to(root).as_posix()] = digest
    return found


def libraries(names: Iterable[str]) -> Component:
    """Return the installed versions."""
    return {name: version(name) for name in names}


def file_digest(path: Path) -> str:
    """Return the shortened SHA-256 of a file's bytes."""
    with path.open("rb") as opened:
        return _short(hashlib.file_digest(opened, "sha256"))


def inputs_digest(inputs: Mapping[str, Component]) -> str:
    """Return one digest of all inputs of a stage."""
    plain = json.dumps({name: dict(parts) for name, parts in inputs.items()}, sort_keys=True)
    return _short(hashlib.sha256(plain.encode()))


def _short(digest: "hashlib._Hash") -> str:
    return DIGEST + digest.hexdigest()[:16]


def _stat(path: Path) -> str:
    stat = path.stat()
    return f"{DIGEST}{stat.st_size}:{stat.st_mtime_ns}"


def _code_digest(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_bare_string(line)]
    return _short(hashlib.sha256(ast.dump(tree).encode()))


def _is_bare_string(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


Inputs = Mapping[str, Component]
"""Named components, such as ``{"catalogue": {…}, "code": {…}}``."""

STAMP = "stamp.json"
_FORMAT = 1
_SHOWN = 3


@dataclass(frozen=True)
class Stage:
    """A step whose output is a folder, and possibly files outside it."""

    name: str
    directory: Path
    inputs: Callable[[], Inputs]
    """Called when it is the stage's turn, since earlier stages may make the inputs."""
    build: Callable[[Path], None]
    """Writes the output into an empty folder."""
    volatile: frozenset[str] = frozenset()
    """Files that differ between equal runs and do not matter to later stages."""
    outside: Callable[[Path], list[Path]] | None = None
    """Returns the output's files outside ``directory``, given the folder."""
    scratch: Path | None = None
    """Folder of what ``build`` needs to resume; removed when it is done."""


def why_stale(stage: Stage) -> str | None:
    """Return why ``stage`` must be built; None if it is up to date."""
    stamp = _read_stamp(stage.directory)
    if stamp is None:
        return "not made yet"
    if stamp["outputs"] != _outputs(stage, stage.directory):
        return "its files were changed or removed"
    return _difference(stamp["inputs"], stage.inputs())


def build(stage: Stage) -> None:
    """Build ``stage`` in a temporary folder and rename it into place, stamp included."""
    inputs = stage.inputs()
    _clear_leftovers(stage.directory)
    if stage.outside is not None:
        # Files outside are replaced one by one, so the old stamp must not cover them.
        (stage.directory / STAMP).unlink(missing_ok=True)
    with directory_aside(stage.directory) as aside:
        stage.build(aside)
        stamp = {
            "format": _FORMAT,
            "stage": stage.name,
            "inputs": {name: dict(parts) for name, parts in inputs.items()},
            "outputs": _outputs(stage, aside),
            "id": _identity(stage, aside),
        }
        write_json(aside / STAMP, stamp)
    if stage.scratch is not None:
        shutil.rmtree(stage.scratch, ignore_errors=True)


def _clear_leftovers(directory: Path) -> None:
    """Remove the temporary folders of killed runs; the workspace is locked."""
    for left in directory.parent.glob(f".{directory.name}.*"):
        if left.is_dir():
            shutil.rmtree(left)


def output_id(stage: Stage) -> str:
    """Return a digest of the stage's output; equal outputs have equal ids."""
    stamp = _read_stamp(stage.directory)
    return "" if stamp is None else str(stamp["id"])


def _read_stamp(directory: Path) -> dict[str, Any] | None:
    try:
        stamp = read_json(directory / STAMP)
    except (FileNotFoundError, ValueError):
        return None
    is_valid = isinstance(stamp, dict) and stamp.get("format") == _FORMAT
    return stamp if is_valid else None


def _outputs(stage: Stage, directory: Path) -> dict[str, str]:
    outputs = {
        path.relative_to(directory).as_posix(): str(path.stat().st_size)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != STAMP
    }
    for path in stage.outside(directory) if stage.outside is not None else ():
        # Another workspace may have written a file of the same name and size.
        exists = path.is_file()
        outputs[str(path)] = f"{path.stat().st_size}:{path.stat().st_mtime_ns}" if exists else ""
    return outputs


def _identity(stage: Stage, directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in stage.volatile:
            digest.update(f"{path.relative_to(directory)}\0{file_digest(path)}\n".encode())
    return _short(digest)


def _difference(before: Inputs, now: Inputs) -> str | None:
    reasons = [
        f"{name} changed ({_parts(before.get(name, {}), now.get(name, {}))})"
        for name in dict.fromkeys([*now, *before])
        if dict(before.get(name, {})) != dict(now.get(name, {}))
    ]
    return "; ".join(reasons) or None


def _parts(before: Component, now: Component) -> str:
    changed = [part for part in sorted({*before, *now}) if before.get(part) != now.get(part)]
    shown = [_part(part, before.get(part), now.get(part)) for part in changed[:_SHOWN]]
    further = len(changed) - len(shown)
    return ", ".join(shown) + (f" and {further} more" if further else "")


def _part(part: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"new: {part}"
    if now is None:
        return f"gone: {part}"
    return part if now.startswith(DIGEST) else f"{part}: {before} → {now}"
