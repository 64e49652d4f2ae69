"""Titles and descriptions as token ids; no torch.

A text that the tokenizer cannot read is none: Thai, for one, is but ``[UNK]`` to an English
vocabulary, and all products of a Thai shop would have the same text.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import tokenizers
from numpy.typing import NDArray

__all__ = ["Tokenizer", "pad_tokens"]


class Tokenizer:
    """A ``tokenizer.json``, truncating to ``max_tokens`` and padding to the longest."""

    def __init__(self, path: Path, max_tokens: int, pad_token_id: int = 0) -> None:
        data = path.read_bytes()
        self.digest = hashlib.sha256(data).hexdigest()
        """SHA-256 of the file: texts are cached by what reads them."""
        self._pad_token_id = pad_token_id
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_tokens)
        # The file may ask for a fixed length, which would cost every short title.
        self._tokenizer.no_padding()
        model = orjson.loads(data)["model"]
        name = model.get("unk_token")
        self._unknown = model.get("unk_id") if name is None else self._tokenizer.token_to_id(name)
        self._special = frozenset(self._encode([""])[0])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, not padded; none of a text that cannot be read.

        An empty text gives the special tokens alone.
        """
        rows = self._encode(texts)
        return [[] if self._unknown_share(row) == 1 else row for row in rows]

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Share of each text's tokens that the vocabulary lacks; 1 for one that cannot be read.

        Signs and digits between unknown words do not tell products apart: unless a known token
        has a letter, the text cannot be read. A text without unknown tokens always can.
        """
        return [self._unknown_share(row) for row in self._encode(texts)]

    def batch(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokenize in one call and pad to the longest of at least one text, each readable."""
        return pad_tokens(self.tokens(texts), self._pad_token_id)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [row.ids for row in self._tokenizer.encode_batch_fast(list(texts))]

    def _unknown_share(self, row: Sequence[int]) -> float:
        unknown = row.count(self._unknown)
        if not unknown:
            return 0.0
        known = {*row} - self._special - {self._unknown}
        if not any(letter.isalpha() for token in known for letter in self._name(token)):
            return 1.0
        return unknown / sum(token not in self._special for token in row)

    def _name(self, token: int) -> str:
        return self._tokenizer.id_to_token(token) or ""


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
