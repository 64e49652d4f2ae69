"""What a stage was made from, part by part, so that a reason can name what changed."""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from newshelf.catalog.find import find_table
from newshelf.errors import SetupError

__all__ = [
    "DIGEST",
    "Component",
    "catalog_files",
    "file_digest",
    "files_by_stat",
    "inputs_digest",
    "libraries",
    "settings_values",
    "sources",
]

Component = Mapping[str, str]
"""Parts and their values or digests, such as ``{"items.parquet": "#3f…"}``."""

DIGEST = "#"
"""What a digest starts with, to tell it from a value that a reader understands."""

_TABLES = ("items", "events", "baskets")
_PICTURES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def catalog_files(catalog: Path) -> Component:
    """Tables by their bytes; pictures, which are many, by path, size and time of change."""
    found = (find_table(catalog, table) for table in _TABLES)
    parts = {path.name: file_digest(path) for path in found if path is not None}
    folder = catalog.parent if catalog.is_file() else catalog
    pictures = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICTURES:
            pictures.update(f"{path.relative_to(folder)}\0{_stat(path)}\n".encode())
    return parts | {"pictures": _short(pictures)}


def files_by_stat(path: Path) -> Component:
    """A file, or every file of a folder, by size and time of change; empty when absent."""
    if path.is_file():
        return {str(path): _stat(path)}
    return {str(inner): _stat(inner) for inner in sorted(path.rglob("*")) if inner.is_file()}


def settings_values(table: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``{"finetune.epochs": "12"}``."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= settings_values(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def sources(root: Path, patterns: Iterable[str]) -> Component:
    """Files that match the glob ``patterns``: Python by its code alone, others by their bytes.

    Comments, docstrings and layout do not count: they compute nothing.

    Raises:
        SetupError: a pattern matches nothing (it names code that has moved).
    """
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
    """Installed versions."""
    return {name: version(name) for name in names}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, shortened."""
    with path.open("rb") as opened:
        return _short(hashlib.file_digest(opened, "sha256"))


def inputs_digest(inputs: Mapping[str, Component]) -> str:
    """One digest of everything a stage is made from."""
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
