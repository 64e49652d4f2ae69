"""Find a catalogue's tables by name; loads no table reader."""

from pathlib import Path

from newshelf.errors import CatalogError

EXTENSIONS = (".parquet", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".xml")
"""What a table's file may end in, each with or without ``.gz``."""
_NOT_READ = (".xlsx", ".xlsm", ".xls", ".ods", ".zip", ".html", ".feather", ".arrow", ".orc",
    ".avro", ".db", ".sqlite", ".bz2", ".xz", ".zst", ".7z", ".rar", ".pdf")  # fmt: skip


def find_table(folder: Path, name: str) -> Path | None:
    """The file of table ``name`` in whatever case, or None; a file by itself holds items.

    Raises:
        CatalogError: when there are two, since either could be the stale one; or only
            something that is not read, such as a spreadsheet or a folder of parts.
    """
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
