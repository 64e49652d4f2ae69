"""Check that an image link names a picture inside the catalogue's folder."""

import os
import stat
from functools import cache
from pathlib import Path, PurePosixPath

__all__ = ["PictureFolder"]


class PictureFolder:
    """The catalogue's folder, asked about many links.

    Directories are resolved once each: a catalogue has many pictures in few of them.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._resolved = cache(self._resolve)

    def problem(self, link: str) -> str | None:
        """Why ``link`` cannot be used, or None when it can."""
        if "://" in link:
            return f"{link!r} is a URL: put the picture into the folder and give its path"
        path = PurePosixPath(link)
        if path.is_absolute() or ".." in path.parts or "\0" in link:
            return f"{link!r} must be a path relative to the catalogue's folder, without '..'"
        try:
            status = os.lstat(self._root / path)
            outside = not self._inside(path, stat.S_ISLNK(status.st_mode))
            if stat.S_ISLNK(status.st_mode) and not outside:
                status = (self._root / path).stat()
        except OSError:
            return f"there is no file {link!r} in the catalogue's folder"
        if outside:
            return f"{link!r} leads out of the catalogue's folder"
        if not stat.S_ISREG(status.st_mode):
            return f"{link!r} is not a file"
        return None if status.st_size else f"{link!r} is an empty file"

    def _inside(self, path: PurePosixPath, is_link: bool) -> bool:
        if is_link:
            return (self._root / path).resolve().is_relative_to(self._root)
        return self._resolved(path.parent).is_relative_to(self._root)

    def _resolve(self, parent: PurePosixPath) -> Path:
        return (self._root / parent).resolve()
