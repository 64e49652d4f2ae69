"""Embeddings of what was encoded before, kept by content and bounded in bytes."""

import hashlib
import threading
from dataclasses import replace

import cachetools
import numpy as np

from newshelf.serving.encoding import Encoding
from newshelf.serving.preprocess import Content

__all__ = ["EncodingCache", "content_key"]

_KEY_BYTES = 16
_ENTRY_BYTES = 1_500
"""About what an entry takes beside its embedding: key, labels and the cache's own tables."""


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
    """The most recently used encodings; errors are not kept. Safe in several threads.

    Args:
        max_bytes: what they may take in all.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kept: cachetools.LRUCache[bytes, Encoding] = cachetools.LRUCache(
            max_bytes, getsizeof=_size
        )
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Encoding | None:
        """What was kept under ``content_key``."""
        with self._lock:
            found: Encoding | None = self._kept.get(key)
            return found

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

    @property
    def nbytes(self) -> int:
        """What it takes now."""
        return int(self._kept.currsize)


def _size(encoding: Encoding) -> int:
    return encoding.embedding.nbytes + _ENTRY_BYTES
