"""Reading of a live shelf: its files as a ``LiveIndex``, and a thread that follows them."""

import logging
import sys
import threading
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from newshelf.errors import NewshelfError, VersionMismatch, WeightsError
from newshelf.files import file_stamp, read_model
from newshelf.serving.index import ItemIndex, load_index, map_tensors
from newshelf.serving.live import LinkRows, LiveIndex, nearest_count
from newshelf.serving.rules import RuleSet
from newshelf.serving.segments import CURRENT, Current, read_current, read_popularity, read_segment

_LOG = logging.getLogger(__name__)

LINKS = "links.safetensors"
"""In the folder of a folded base: ``LinkRows``."""


def open_live(folder: Path, current: Current, old: LiveIndex) -> LiveIndex:
    """Read what a publication names, and reuse what an earlier one has in common with it."""
    live: LiveIndex | None = old if old.current is not None else None
    while live is not None and not _begins(live, current):
        live = live.parent
    if live is None:
        index, links = _open_base(folder, current.base, old)
        added = read_popularity(folder, current.popularity) if current.popularity else {}
        live = LiveIndex.over(old.archive, index, links, added)
        live = replace(live, current=current.model_copy(update={"segments": ()}))
    known = live.current.segments if live.current else ()
    for name in current.segments[len(known) :]:
        live = live.plus(name, read_segment(folder, name, live.shape))
    live = replace(live, current=current, rules=None)
    if current.rules is not None:
        rules = read_model(folder / current.rules, RuleSet, "file of rules")
        live = live.with_rules(rules, old.rules)
    live.prepare()
    return live


def _begins(live: LiveIndex, current: Current) -> bool:
    """Return True where an index lacks at most some last segments of a publication."""
    before = live.current
    return (
        before is not None
        and (before.base, before.popularity) == (current.base, current.popularity)
        and before.segments == current.segments[: len(before.segments)]
    )


def _open_base(folder: Path, name: str | None, old: LiveIndex) -> tuple[ItemIndex, LinkRows]:
    archive = old.archive
    if name is None:
        return archive, LinkRows.of_archive(archive)
    if old.current is not None and old.current.base == name:
        return old.base, old.positions.blocks[0].links
    index = load_index(
        folder / name,
        encoder_version=archive.manifest.encoder_version,
        min_confidence=archive.table.known.reader.least,
    )
    widths = [None if one.vectors is None else one.vectors.shape[1] for one in (index, archive)]
    if widths[0] != widths[1] or index.embeddings.shape[1] != archive.embeddings.shape[1]:
        raise VersionMismatch(f"{folder / name} has vectors of another width than the archive")
    return index, _read_links(folder / name, len(index), archive)


def _read_links(folder: Path, items: int, archive: ItemIndex) -> LinkRows:
    try:
        arrays = map_tensors(folder / LINKS)
        links = LinkRows(**arrays)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder / LINKS} cannot be loaded: {error}") from error
    near = (items, nearest_count(archive))
    wanted = {"origin": (items,), "unchanged": (items,), "nearest": near, "shares": near}
    rows = max(int(array.max(initial=-1)) for array in (links.origin, links.nearest))
    if {name: array.shape for name, array in arrays.items()} != wanted or rows >= len(archive):
        raise WeightsError(f"{folder / LINKS} does not belong to this base and archive")
    return links


_POLL_S = 0.05
"""Well below the second in which a change is to be visible; a look takes microseconds."""
_SWITCH_S = 0.0005
"""A request that comes while a segment is read otherwise waits 5 ms, Python's default."""
_RETRY_S = 5.0
"""Until files that could not be read are tried again."""


class ShelfReader:
    """Follows the publications of one model version; ``live`` is always complete."""

    def __init__(self, folder: Path, archive: LiveIndex) -> None:
        self.live = archive
        self._folder = folder
        self._seen = (0, 0)
        self._said = ""
        self._stopped = threading.Event()

    def read(self) -> bool:
        """Read what is current, if it has changed; log a failure once and return False."""
        seen = file_stamp(self._folder / CURRENT)
        if seen == self._seen or not any(seen):
            return True
        try:
            current = read_current(self._folder)
            if current is not None:
                self.live = open_live(self._folder, current, self.live)
        except (NewshelfError, OSError, ValueError, MemoryError) as error:
            if str(error) != self._said:
                _LOG.error("the shelf stays at %s: %s", self.live.version, error)
            self._said = str(error)
            return False
        self._seen, self._said = seen, ""
        return True

    def follow(self) -> None:
        """Start the thread; in a process that is forked, after the fork."""
        sys.setswitchinterval(_SWITCH_S)
        threading.Thread(target=self._follow, name="shelf", daemon=True).start()

    def stop(self) -> None:
        """End the thread when it is done with what it reads."""
        self._stopped.set()

    def _follow(self) -> None:
        wait = _POLL_S
        while not self._stopped.wait(wait):
            try:
                wait = _POLL_S if self.read() else _RETRY_S
            except Exception:
                _LOG.exception("the shelf stays at %s", self.live.version)
                wait = _RETRY_S
