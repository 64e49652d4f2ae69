"""Encoding of products to embeddings and labels, with batching of forward passes and a cache.

A forward pass pads its texts to the longest, so one long description makes all as expensive. It
also has a fixed cost. Texts of similar length therefore share a forward pass where that saves more
than an additional pass costs::

    cost(forward) = rows with a text x longest text + FORWARD        in tokens

Rows without a picture go first: their forward pass runs while the pictures are decoded.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import cachetools
import numpy as np
from numpy.typing import NDArray

from newshelf.errors import DeadlineExceeded, InvalidField, NewshelfError
from newshelf.nn.spec import HEADS, EncoderSpec, HeadName
from newshelf.serving.preprocess import Content, DecodedPictures, InputBuilder, Reader
from newshelf.serving.products import ProductInput
from newshelf.serving.protocol import refuse_late
from newshelf.serving.runtimes.base import Array, Runtime
from newshelf.serving.trace import CACHE_HITS, CACHE_MISSES, UNREAD_TEXTS, StageTimer


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoder's output for one product."""

    embedding: NDArray[np.float32]
    """``(512,)``, of unit length."""
    labels: dict[HeadName, tuple[str, float]]
    """The likeliest class of each head, and its probability."""
    text_unread: bool = False
    """Whether it has a text of which the text tower knows no word."""


def read_outputs(
    outputs: Mapping[str, NDArray[np.float32]], spec: EncoderSpec
) -> list[Encoding | NewshelfError]:
    """One encoding per row of ``(B, 512)``; an error for a row whose embedding is not finite."""
    embeddings = outputs["embedding"]
    finite = np.asarray(np.isfinite(embeddings).all(axis=1))
    labels = [dict[HeadName, tuple[str, float]]() for _ in embeddings]
    for head in HEADS:
        if classes := spec.labels.get(head):
            logits = outputs[f"{head}_logits"]
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = (powers.max(axis=1) / powers.sum(axis=1)).tolist()
            likeliest = logits.argmax(axis=1).tolist()
            for row, score, index in zip(labels, scores, likeliest, strict=True):
                row[head] = (classes[index], round(score, 6))
    return [
        Encoding(embedding, row)
        if good
        else NewshelfError("the model gave no finite embedding for this product")
        for embedding, row, good in zip(embeddings, labels, finite, strict=True)
    ]


FORWARD = 40
"""What one more forward costs, in tokens of text."""
FORWARD_ON_GPU = 4_000
"""The same on a GPU, which computes many tokens while one forward is launched; an estimate."""


def plan_forwards(
    lengths: Sequence[int],
    pictured: Sequence[bool],
    *,
    max_rows: int,
    max_pictures: int,
    on_gpu: bool = False,
) -> list[list[int]]:
    """Split rows into forwards, lists of rows, so that the sum of their costs is the least.

    ``lengths`` are tokens, 0 without a text. A forward has at most ``max_rows`` rows, or
    ``max_pictures``, whose number lets its run overlap with more of the decoding; nothing overlaps
    ``on_gpu``.
    """
    if on_gpu:
        rows = sorted(range(len(lengths)), key=lambda row: lengths[row])
        return _split(rows, lengths, min(max_rows, max_pictures), FORWARD_ON_GPU)
    rows = sorted(range(len(lengths)), key=lambda row: (pictured[row], lengths[row]))
    first_pictured = sum(not has for has in pictured)
    return [
        *_split(rows[:first_pictured], lengths, max_rows, FORWARD),
        *_split(rows[first_pictured:], lengths, min(max_rows, max_pictures), FORWARD),
    ]


def _split(rows: Sequence[int], lengths: Sequence[int], most: int, forward: int) -> list[list[int]]:
    """The cheapest split of ``rows``, which are sorted by length, by dynamic programming."""
    texts = sum(not lengths[row] for row in rows)
    best = [0]
    start_of = [0]
    for end in range(1, len(rows) + 1):
        longest = lengths[rows[end - 1]]
        costs = {
            # Rows without a text come first, so those before `texts` are not padded.
            start: best[start] + forward + (end - max(start, texts)) * longest
            for start in range(max(0, end - most), end)
        }
        start = min(costs, key=lambda at: costs[at])
        best.append(costs[start])
        start_of.append(start)
    groups: list[list[int]] = []
    end = len(rows)
    while end:
        groups.append(list(rows[start_of[end] : end]))
        end = start_of[end]
    return groups[::-1]


_KEY_BYTES = 16
_ENTRY_BYTES = 1_500
"""Approximate size of an entry without its embedding: key, labels and the cache's own tables."""


def content_key(content: Content, picture: bytes | bytearray | None) -> bytes:
    """BLAKE2b of all that the encoder reads of a product. Equal products have equal keys."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    # Of one length for one model, so nothing can be taken for part of the text.
    digest.update(np.array(content.attributes, dtype=np.int64).tobytes())
    text = content.text.encode()
    digest.update(len(text).to_bytes(8))
    digest.update(text)
    if picture is not None:
        digest.update(b"\1")
        digest.update(picture)
    return digest.digest()


class EncodingCache:
    """The most recently used encodings, without errors; safe in several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: cachetools.LRUCache[bytes, Encoding] = cachetools.LRUCache(
            max_bytes, getsizeof=_size
        )
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Encoding | None:
        """Return the entry of ``content_key``."""
        with self._lock:
            return self._kept.get(key)

    def put(self, key: bytes, encoding: Encoding) -> None:
        """Keep it, in the place of what was not asked for the longest."""
        # A row of a batch would hold the whole batch in memory.
        embedding = encoding.embedding.copy()
        embedding.flags.writeable = False
        kept = replace(encoding, embedding=embedding)
        if _size(kept) > self._kept.maxsize:
            return
        with self._lock:
            self._kept[key] = kept


def _size(encoding: Encoding) -> int:
    return encoding.embedding.nbytes + _ENTRY_BYTES


Result = Encoding | NewshelfError


@dataclass(frozen=True, slots=True)
class _Work:
    places: list[int]
    """Their positions among the products."""
    item: ProductInput
    """The one of them with the latest deadline."""
    content: Content
    key: bytes

    @property
    def at(self) -> int:
        """The position of the first of them."""
        return self.places[0]


@dataclass(frozen=True, slots=True)
class _Forward:
    """Products that share a forward, their pictures perhaps still being decoded."""

    works: Sequence[_Work]
    tokens: Sequence[Sequence[int]]
    pictured: Sequence[int]
    """Which of ``works`` have a picture."""
    pictures: Callable[[], DecodedPictures]
    """Waits for them; only where there are any."""


@dataclass(eq=False)
class ProductEncoder:
    """Encodes products of any requests together; one forward runs while pictures are decoded."""

    spec: EncoderSpec
    runtime: Runtime
    builder: InputBuilder
    reader: Reader
    max_forward_batch: int
    max_forward_pictures: int
    cache: EncodingCache | None = None

    def encode(self, inputs: Sequence[ProductInput], stages: StageTimer) -> list[Result]:
        """Encode every product; one that cannot be gets its error in its place."""
        results: dict[int, Result] = {}
        with stages.measure("preprocess"):
            works = self._to_do(inputs, results, stages)
            plan = self._plan(works, results, stages)
        for forward in self._ahead(plan, stages):
            results |= self._run(forward, stages)
        for work in works:
            result = results[work.at]
            if self.cache is not None and isinstance(result, Encoding):
                self.cache.put(work.key, result)
            for at in work.places:
                results[at] = _told_of(inputs[at], result, work.item)
        return [results[at] for at in range(len(inputs))]

    def _to_do(
        self, inputs: Sequence[ProductInput], results: dict[int, Result], stages: StageTimer
    ) -> list[_Work]:
        """The products that must be encoded; the results of the others go to ``results``."""
        works: dict[bytes, _Work] = {}
        hits = 0
        for at, item in enumerate(inputs):
            if error := self._unreadable(item):
                results[at] = error
                continue
            content = self.builder.content(item.product)
            key = content_key(content, item.picture)
            if work := works.get(key):
                hits += 1
                work.places.append(at)
                if _deadline(item) > _deadline(work.item):
                    works[key] = replace(work, item=item)
            elif self.cache is not None and (found := self.cache.get(key)):
                hits += 1
                results[at] = found
            else:
                works[key] = _Work([at], item, content, key)
        if self.cache is not None:
            stages.count(CACHE_HITS, hits)
            stages.count(CACHE_MISSES, len(works))
        return list(works.values())

    def _unreadable(self, item: ProductInput) -> InvalidField | None:
        if self._has_picture(item) or (self.spec.text is not None and item.product.text()):
            return None
        wanted = "an image" if self.spec.text is None else "a title or a description"
        return InvalidField(f"this model needs {wanted}", field=item.at or None)

    def _has_picture(self, item: ProductInput) -> bool:
        return item.picture is not None and self.spec.image is not None

    def _plan(
        self, all_works: Sequence[_Work], results: dict[int, Result], stages: StageTimer
    ) -> list[tuple[list[_Work], list[list[int]]]]:
        """The works that share a forward, with their tokens; errors go to ``results``."""
        works, tokens = [], []
        for work, row in zip(
            all_works, self.builder.tokens([work.content for work in all_works]), strict=True
        ):
            stages.count(UNREAD_TEXTS, bool(work.content.text and not row))
            if row or self._has_picture(work.item) or any(work.content.attributes):
                works.append(work)
                tokens.append(row)
            else:
                results[work.at] = InvalidField(
                    "this model's text tower knows no word of the title and description: send "
                    "an image or attributes, too, or train with a text tower for this language",
                    field=work.item.at or None,
                )
        groups = plan_forwards(
            [len(row) for row in tokens],
            [work.item.picture is not None for work in works],
            max_rows=self.max_forward_batch,
            max_pictures=self.max_forward_pictures,
            on_gpu=self.builder.on_gpu,
        )
        return [([works[row] for row in group], [tokens[row] for row in group]) for group in groups]

    def _ahead(
        self, plan: Sequence[tuple[list[_Work], list[list[int]]]], stages: StageTimer
    ) -> Iterator[_Forward]:
        """Each forward, when the pictures of the next one are on their way."""
        waiting: _Forward | None = None
        for works, tokens in plan:
            pictured = [row for row, work in enumerate(works) if work.item.picture is not None]
            with stages.measure("decode"):
                pictures = self.reader.start([works[row].item for row in pictured])
            if waiting:
                yield waiting
            waiting = _Forward(works, tokens, pictured, pictures)
        if waiting:
            yield waiting

    def _run(self, forward: _Forward, stages: StageTimer) -> dict[int, Result]:
        results: dict[int, Result] = {}
        images: Array | None = None
        if forward.pictured:
            with stages.measure("decode"):
                pictures = forward.pictures()
            images = pictures.images
            for at, error in pictures.failed.items():
                results[forward.works[forward.pictured[at]].at] = error
        for work in forward.works:
            if work.at not in results:
                try:
                    refuse_late(work.item.deadline_s)
                except DeadlineExceeded as error:
                    results[work.at] = error
        kept = [row for row, work in enumerate(forward.works) if work.at not in results]
        if not kept:
            return results
        with stages.measure("preprocess"):
            inputs = self._inputs(forward, kept, images)
        with stages.measure("inference"):
            outputs = self.runtime.run(inputs)
        with stages.measure("postprocess"):
            encodings = read_outputs(outputs, self.spec)
        for row, result in zip(kept, encodings, strict=True):
            work = forward.works[row]
            unread = bool(work.content.text and not forward.tokens[row])
            results[work.at] = (
                replace(result, text_unread=unread) if isinstance(result, Encoding) else result
            )
        return results

    def _inputs(
        self, forward: _Forward, kept: Sequence[int], images: "Array | None"
    ) -> Mapping[str, Array]:
        row_of = {row: new for new, row in enumerate(kept)}
        good = [at for at, row in enumerate(forward.pictured) if row in row_of]
        if images is not None and len(good) < len(images):
            images = images[good]
        return self.builder.inputs(
            [forward.works[row].content for row in kept],
            [forward.tokens[row] for row in kept],
            images,
            [row_of[forward.pictured[at]] for at in good],
        )


def _deadline(item: ProductInput) -> float:
    return math.inf if item.deadline_s is None else item.deadline_s


def _told_of(item: ProductInput, result: Result, encoded: ProductInput) -> Result:
    """The result of ``encoded`` as that of its equal ``item``: an error names another place."""
    if item is encoded or isinstance(result, Encoding):
        return result
    error = copy(result)
    if result.field is not None:
        name = result.field.removeprefix(encoded.at).removeprefix(".")
        error.field = (item.field(name) if name else item.at) or None
    return error
