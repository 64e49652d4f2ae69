"""Lookup of a catalogue's table files by name, without a table reader."""

from pathlib import Path

from newshelf.errors import CatalogError

EXTENSIONS = (".parquet", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".xml")
"""Extensions of table files, each with or without ``.gz``."""
_NOT_READ = (".xlsx", ".xlsm", ".xls", ".ods", ".zip", ".html", ".feather", ".arrow", ".orc",
    ".avro", ".db", ".sqlite", ".bz2", ".xz", ".zst", ".7z", ".rar", ".pdf")  # fmt: skip


def find_table(folder: Path, name: str) -> Path | None:
    """Return the file of table ``name`` in any case, or None; a single file has items."""
    if not folder.is_dir():
        return folder if name == "items" and folder.is_file() else None
    inside = [path for path in folder.iterdir() if path.name.lower().startswith(name)]
    by_ending: dict[str, list[Path]] = {end: [] for end in (*EXTENSIONS, *_NOT_READ, "")}
    for path in sorted(inside):
        ending = path.name.lower().removeprefix(name).removesuffix(".gz")
        by_ending.get(ending, []).append(path)
    found = [path for end in EXTENSIONS for path in by_ending[end] if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise CatalogError(f"{folder} holds {names}: keep one of them")
    if found:
        return found[0]
    parts = [path for end in ("", ".parquet") for path in by_ending[end] if path.is_dir()]
    if parts and any(path.suffix in EXTENSIONS for path in parts[0].rglob("*")):
        raise CatalogError(
            f"{parts[0]} is a folder of parts: write them as one file, such as {name}.parquet"
        )
    return next((path for end in _NOT_READ for path in by_ending[end] if path.is_file()), None)
