"""Following of the store's changes: what is ready is published, the rest encoded first."""

import gc
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice

from newshelf.errors import NewshelfError, ServerError, SettingsError, Unavailable
from newshelf.files import file_stamp
from newshelf.rollout.versions import ARCHIVES, TorchServeVersions, find_archive, unpack
from newshelf.server.program import ShelfPlan, rest
from newshelf.serving.rule_masks import further_columns
from newshelf.serving.rules import read_rules
from newshelf.shelf.model import ShelfModel
from newshelf.shelf.popularity import LivePopularity
from newshelf.shelf.publish import Publisher
from newshelf.store.items import EncodedItem, ItemRepository, StoredItem
from newshelf.store.store import EventStore

_LOG = logging.getLogger(__name__)
_LEASE = "shelf"
"""Of the host that encodes."""
_VERSIONS_S, _RULES_S, _POPULARITY_S, _PUBLISHED_S, _ROBOTS_S = 2.0, 1.0, 10.0, 10.0, 3_600.0
_PICTURES_S = 3_600.0
"""Between two removals of pictures that no product has any more."""
_RETRY_S = 30.0
"""Before a version that could not be loaded is tried again."""
_PAUSE_S = 1.0
_PAGE, _ENCODED_AT_ONCE, _PICTURES_AT_ONCE = 1_000, 64, 8
"""Changes read together, and products and pictures encoded together: the longest wait of a change
that needs no encoding."""
_BATCHES = 16
"""At the encoder, which then has enough to do while a segment is made of what it has encoded."""
_SEGMENT_S = 0.5
"""Least time between two segments: workers answer while they read one, and each costs the same."""
_ENCODING_S = 0.02
"""Longest wait for the encoder between two looks at the store."""

Ready = tuple[StoredItem, EncodedItem | None]


@dataclass(eq=False)
class VersionShelf:
    """Publishes the store's changes of one model version, and encodes in another thread."""

    store: ItemRepository
    model: ShelfModel
    publisher: Publisher
    encoder: Executor
    host: str
    max_picture_bytes: int

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Continue from what is published, as after a start."""
        self.publisher.reload()
        if self.publisher.current.seq > self.store.last_seq():
            _LOG.warning("%s: another store: all is published again", self.model.version)
            self.publisher.begin_again()
        self._seen = self.publisher.current.seq
        seeded = self.store.ids(unchanged=True)
        absent = self.model.index.table.rows(seeded) < 0
        # In order of their changes; 0 for seeded products that this version was not trained on.
        self._waiting = {item: 0 for item, is_new in zip(seeded, absent, strict=True) if is_new}
        self._encoding = deque[tuple[list[StoredItem], Future[list[EncodedItem]]]]()
        self._encoded: list[EncodedItem] = []
        self._ready: dict[str, Ready] = {}
        self._published_s = -_PUBLISHED_S

    def step(self, *, encodes: bool) -> bool:
        """Publish changes, and encode some; return whether more can be done at once."""
        changed = self.store.encoded(self.model.version, self._seen, _PAGE)
        if changed:
            self._seen = changed[-1][0].seq
        for item, found in changed:
            self._sort(item, found)
        goes_on = self._step_encoder(encodes=encodes)
        since_s = time.monotonic() - self._published_s
        if self._ready and since_s > _SEGMENT_S:
            self._publish()
        elif since_s > _PUBLISHED_S:
            self._record()
        return len(changed) == _PAGE or goes_on

    def _step_encoder(self, *, encodes: bool) -> bool:
        """Take what was encoded, and keep the encoder at work; return False if it is idle."""
        if self._encoding:
            work, encoding = self._encoding[0]
            wait([encoding], timeout=_ENCODING_S)
            if encoding.done():
                self._encoding.popleft()
                self._take(work, encoding.result())
        # The next ones wait at the encoder, which never waits for this thread.
        while self._waiting and len(self._encoding) < _BATCHES:
            work = self._read_next(encodes=encodes)
            if not work:
                break
            read = partial(self.store.read_picture, max_bytes=self.max_picture_bytes)
            encoding = self.encoder.submit(self.model.encode, work, read)
            self._encoding.append((work, encoding))
        return bool(self._encoding)

    def _take(self, work: Sequence[StoredItem], vectors: Sequence[EncodedItem]) -> None:
        self._encoded += vectors
        for item, found in zip(work, vectors, strict=True):
            # It may have changed meanwhile.
            if self._waiting.get(item.id) == item.seq:
                del self._waiting[item.id]
                self._set_ready(item, found)

    def _read_next(self, *, encodes: bool) -> list[StoredItem]:
        """Return the oldest waiting products to encode; those that need no encoding are ready."""
        busy = {item.id for work, _ in self._encoding for item in work}
        oldest = [*islice((one for one in self._waiting if one not in busy), _ENCODED_AT_ONCE)]
        work, pictures = list[StoredItem](), 0
        for item, found in self.store.encoded(self.model.version, ids=oldest) if oldest else ():
            if not self._sort(item, found) and encodes and pictures < _PICTURES_AT_ONCE:
                pictures += item.picture is not None
                work.append(item)
        return work

    def _sort(self, item: StoredItem, found: EncodedItem | None) -> bool:
        """Note a product as ready, or as waiting for its vectors; return whether it is ready."""
        vectors = None if item.deleted else self.model.known_vectors(item, found)
        if item.deleted or vectors is not None:
            self._waiting.pop(item.id, None)
            self._set_ready(item, vectors)
            return True
        self._waiting[item.id] = item.seq
        return False

    def _set_ready(self, item: StoredItem, found: EncodedItem | None) -> None:
        if item.id not in self._ready or self._ready[item.id][0].seq <= item.seq:
            self._ready[item.id] = item, found

    def _publish(self) -> None:
        """Store the new vectors, and publish what is ready as one segment."""
        self.store.put_encoded(self.model.version, self._encoded)
        ready, self._encoded = list(self._ready.values()), []
        puts = [
            (item, found)
            for item, found in ready
            if found is not None and found.embedding is not None
        ]
        removed = self._ready.keys() - {item.id for item, _ in puts}
        behind = [seq - 1 for seq in self._waiting.values() if seq]
        seq = min(behind, default=self._seen)
        self.publisher.add(self.model.segment(puts, sorted(removed)), seq)
        self._ready = {}
        self._record()

    def _record(self) -> None:
        self.store.published(self.host, self.model.version, self.publisher.current.seq)
        self._published_s = time.monotonic()


@dataclass(eq=False)
class Follower:
    """Keeps the shelf of every version that TorchServe serves."""

    store: EventStore
    plan: ShelfPlan
    host: str
    holder: str

    def __post_init__(self) -> None:
        store, plan = self.store, self.plan
        self._versions = TorchServeVersions(plan.torchserve, plan.model_store, {})
        self._popularity = LivePopularity(
            store.database, plan.settings.half_life_hours, plan.event_weights, plan.robots
        )
        # Above all for folding, which can wait; requests and changes cannot.
        self._executor = ThreadPoolExecutor(1, "background", initializer=lambda: os.nice(10))
        self._encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._opening: dict[str, Future[ShelfModel]] = {}
        self._shelves: dict[str, VersionShelf] = {}
        self._due: dict[str, float] = {}
        self._rules: dict[str, tuple[int, int]] = {}
        self._failed: set[str] = set()
        self._encodes = False

    def run(self, ended: threading.Event) -> None:
        """Follow until ``ended`` is set."""
        pause_s = 0.0
        while not rest(ended, pause_s):
            pause_s = 0.0 if self._tick() else self.plan.settings.poll_ms / 1000
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._encodes:
            self.store.leases.release(_LEASE, self.holder)

    def _tick(self) -> bool:
        try:
            self._every("versions", _VERSIONS_S, self._refresh)
            self._every("lease", self.plan.settings.lease_s / 3, self._take_lease)
            busy = False
            for version, shelf in self._shelves.items():
                if self._due.get(version, 0) <= time.monotonic():
                    busy |= self._step(version, shelf)
            self._every("rules", _RULES_S, self._publish_rules)
            if self._encodes:
                self._every("pictures", _PICTURES_S, self.store.items.remove_unused_pictures)
            # In the background: changes of products do not wait for it.
            find_robots = partial(self._executor.submit, self._popularity.find_robots)
            self._every("robots", _ROBOTS_S, find_robots)
            self._every("popularity", _POPULARITY_S, self._publish_popularity)
        except Unavailable as error:
            _LOG.warning("the next look tries again: %s", error.message)
            time.sleep(_PAUSE_S)
            return False
        return busy

    def _every(self, name: str, period_s: float, act: Callable[[], object]) -> None:
        if self._due.get(name, 0) <= time.monotonic():
            act()
            self._due[name] = time.monotonic() + period_s

    def _step(self, version: str, shelf: VersionShelf) -> bool:
        if version in self._failed:
            # What is in memory may not be published.
            shelf.restart()
            self._failed.discard(version)
        try:
            busy = shelf.step(encodes=self._encodes)
            shelf.publisher.fold_if_large(waits=busy)
        except Unavailable:
            self._failed.add(version)
            raise
        except Exception:
            # The other versions are followed meanwhile.
            _LOG.exception("%s: its shelf is not kept", version)
            self._failed.add(version)
            self._due[version] = time.monotonic() + _PAUSE_S
            return False
        return busy

    def _take_lease(self) -> None:
        before = self._encodes
        self._encodes = self.store.leases.acquire(_LEASE, self.holder, self.plan.settings.lease_s)
        if self._encodes != before:
            _LOG.info("this host %s", "encodes" if self._encodes else "only publishes")

    def _refresh(self) -> None:
        """Open the shelves of versions that are served now, and close those of others."""
        try:
            loaded = self._versions.loaded()
        except ServerError as error:
            _LOG.warning("the versions are not known: %s", error.message)
            return
        for version in self._shelves.keys() - loaded:
            del self._shelves[version]
            self._rules.pop(version, None)
            _LOG.info("%s is not served any more", version)
        for version in loaded - self._shelves.keys():
            if version not in self._opening and self._due.get(version, 0) <= time.monotonic():
                self._opening[version] = self._executor.submit(self._open, version)
        for version in [one for one, opening in self._opening.items() if opening.done()]:
            self._opened(version, self._opening.pop(version))
        for shelf in self._shelves.values():
            shelf.publisher.clean()
        if loaded:
            self._remove_old(loaded)

    def _open(self, version: str) -> ShelfModel:
        archive = find_archive(self.plan.model_store, version)
        model = ShelfModel(unpack(archive, self.plan.folder / ARCHIVES / version))
        model.open_encoder()
        # The collector need not pass over it again and again; a pass holds up the encoder.
        gc.collect()
        gc.freeze()
        return model

    def _opened(self, version: str, opening: Future[ShelfModel]) -> None:
        if error := opening.exception():
            reason = error.message if isinstance(error, NewshelfError) else repr(error)
            _LOG.error("%s has no shelf: %s", version, reason)
            self._due[version] = time.monotonic() + _RETRY_S
            return
        model = opening.result()
        settings = self.plan.settings
        publisher = Publisher(
            self.plan.folder / version,
            model.shape,
            fold=model.fold,
            executor=self._executor,
            fold_rows=settings.fold_rows,
        )
        self._shelves[version] = VersionShelf(
            self.store.items,
            model,
            publisher,
            encoder=self._encoder,
            host=self.host,
            max_picture_bytes=self.plan.max_picture_bytes,
        )
        _LOG.info("%s: published up to change %d", version, publisher.current.seq)

    def _publish_popularity(self) -> None:
        interactions = self._popularity.update()
        for shelf in self._shelves.values():
            shelf.publisher.set_popularity(interactions)

    def _publish_rules(self) -> None:
        """Publish the rules where they have changed; invalid ones change nothing."""
        path = self.plan.rules
        for version, shelf in self._shelves.items():
            stamp = file_stamp(path)
            if self._rules.get(version) == stamp:
                continue
            self._rules[version] = stamp
            try:
                columns = further_columns(shelf.model.index.table)
                found = read_rules(path, columns) if path and any(stamp) else None
            except SettingsError as error:
                _LOG.error("%s: the rules stay as they were: %s", version, error.message)
                continue
            shelf.publisher.set_rules(found)
            _LOG.info("%s: %d rules", version, len(found.rules) if found else 0)

    def _remove_old(self, loaded: Set[str]) -> None:
        """Remove what is kept of versions whose archive is gone."""
        for kept in (self.plan.folder, self.plan.folder / ARCHIVES):
            for path in kept.iterdir() if kept.is_dir() else ():
                name = path.name
                there = (self.plan.model_store / f"recommender-{name}.mar").is_file()
                if path.is_dir() and not name.startswith(".") and name not in loaded and not there:
                    shutil.rmtree(path, ignore_errors=True)
                    self.store.items.forget_version(name)
