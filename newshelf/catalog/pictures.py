"""Resolution of image links to picture files within the catalogue's folder."""

import contextlib
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from newshelf.catalog.report import quoted
from newshelf.catalog.schema import trim

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+:)?//", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)
_RELATIVE = "must be a path relative to the catalogue's folder, without '..'"
_LISTED_FOLDERS = 20
"""Folders to search for a file of the same name."""


class PictureFolder:
    """Lookup of links in the catalogue's folder; resolves and lists each directory once."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._resolved = cache(self._resolve)
        self._names = cache(self._list_names)

    def find(self, link: str) -> tuple[str | None, str | None]:
        """Return the path within the folder of the file that ``link`` names, or the reason of none.

        A link with backslashes, other case or Unicode form, or written as a URL's path (``%20``,
        ``?v=1``, a leading slash) is found if exactly one file matches.
        """
        plain = not link.startswith("/") and ".." not in link and "\0" not in link
        if plain and os.path.lexists(f"{self._root}/{link}"):  # the usual case
            reason = self._problem(PurePosixPath(link))
            return (None, f"{quoted(link)} {reason}") if reason else (link, None)
        paths = [PurePosixPath(spelling) for spelling in _spellings(link)]
        if reason := _refused(link, paths):
            return None, reason
        for path in paths:
            found = self._matching(path)
            if len(found) > 1:
                names = " or ".join(map(quoted, found[:2]))
                return None, f"{quoted(link)} could be {names}: write it as the file is called"
            if found:
                reason = self._problem(PurePosixPath(found[0]))
                return (None, f"{quoted(link)} {reason}") if reason else (found[0], None)
        if paths[1].is_absolute():
            return None, f"{quoted(link)} {_RELATIVE}"
        return None, f"there is no file {quoted(link)} in the catalogue's folder{self._hint(link)}"

    def _matching(self, path: PurePosixPath) -> list[str]:
        """Return paths that differ from ``path`` in Unicode form only, else those in case too."""
        found = [""] if not path.is_absolute() else []
        for part in path.parts:
            found = [
                str(PurePosixPath(base, name))
                for base in found
                for name in self._names(base).get(_fold(part), ())
            ]
        same = unicodedata.normalize("NFC", str(path))
        return [name for name in found if unicodedata.normalize("NFC", name) == same] or found

    def _problem(self, path: PurePosixPath) -> str | None:
        """Return why the existing file at ``path`` cannot be used."""
        try:
            status = os.lstat(self._root / path)
            is_link = stat.S_ISLNK(status.st_mode)
            inside = (self._root / path).resolve() if is_link else self._resolved(path.parent)
            if not inside.is_relative_to(self._root):
                return "leads out of the catalogue's folder"
            if is_link:
                status = (self._root / path).stat()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        return None if status.st_size else "is an empty file"

    def _hint(self, link: str) -> str:
        """Suggest a file in another folder or with another extension."""
        first = re.split(r"[,;|]", link)[0]
        if first != link and (found := self.find(first)[0]):
            return f": it names several; give one, such as {quoted(found)}"
        path = PurePosixPath(_spellings(link)[-1])
        inside = sorted(names[0] for names in self._names("").values())
        inside = [name for name in inside if (self._root / name).is_dir()][:_LISTED_FOLDERS]
        folders = [*self._matching(path.parent), "", *inside]
        for by_stem in (False, True):
            for folder in folders:
                names = self._names(folder, by_stem=by_stem)
                if near := names.get(_fold(path.stem if by_stem else path.name)):
                    return f"; is {quoted(str(PurePosixPath(folder, near[0])))} meant?"
        return ""

    def _list_names(self, folder: str, *, by_stem: bool = False) -> dict[str, list[str]]:
        """Return folded name → names in ``folder``."""
        found: dict[str, list[str]] = {}
        if self._resolved(PurePosixPath(folder)).is_relative_to(self._root):
            with contextlib.suppress(OSError):
                for name in sorted(path.name for path in (self._root / folder).iterdir()):
                    if name.isascii() or not re.search("[\ud800-\udfff]", name):
                        key = PurePosixPath(name).stem if by_stem else name
                        found.setdefault(_fold(key), []).append(name)
        return found

    def _resolve(self, path: PurePosixPath) -> Path:
        return (self._root / path).resolve()


def _spellings(link: str) -> list[str]:
    plain = trim(link).replace("\\", "/")
    bare = re.split(r"[?#]", plain.lstrip("/"))[0]
    return [link, plain, plain.lstrip("/"), bare, unquote(bare)]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _refused(link: str, paths: Sequence[PurePosixPath]) -> str | None:
    if link.lower().startswith("data:"):
        return f"{quoted(link)} is the picture itself: write it to a file and give its path"
    if _URL.match(link):
        return f"{quoted(link)} is a URL: put the picture into the folder and give its path"
    if _DRIVE.match(link) or any(".." in path.parts or "\0" in str(path) for path in paths):
        return f"{quoted(link)} {_RELATIVE}"
    return None
