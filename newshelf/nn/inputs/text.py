"""Titles and descriptions as token ids; no torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

__all__ = ["Tokenizer", "pad_tokens"]


class Tokenizer:
    """A ``tokenizer.json``, truncating to ``max_tokens`` and padding to the longest."""

    def __init__(self, path: Path, max_tokens: int, pad_token_id: int = 0) -> None:
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        """SHA-256 of the file: texts are cached by what reads them."""
        self._pad_token_id = pad_token_id
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_tokens)
        # The file may ask for a fixed length, which would cost every short title.
        self._tokenizer.no_padding()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, not padded; an empty text gives the special tokens alone."""
        return [row.ids for row in self._tokenizer.encode_batch_fast(list(texts))]

    def batch(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokenize in one call and pad to the longest of at least one text."""
        return pad_tokens(self.tokens(texts), self._pad_token_id)


def pad_tokens(
    rows: Sequence[Sequence[int]], pad_token_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay rows of token ids side by side.

    Args:
        rows: at least one, each from ``Tokenizer.tokens``.
        pad_token_id: fills the shorter ones up.

    Returns:
        ``input_ids`` and ``attention_mask``, each ``(len(rows), longest)`` int64.
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    attention_mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(attention_mask.shape, pad_token_id, dtype=np.int64)
    for padded, row in zip(input_ids, rows, strict=True):
        padded[: len(row)] = row
    return input_ids, attention_mask.astype(np.int64)
