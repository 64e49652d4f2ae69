"""Titles and descriptions as token ids."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

__all__ = ["Tokenizer"]


class Tokenizer:
    """A ``tokenizer.json``, truncating to ``max_tokens`` and padding to the longest."""

    def __init__(self, path: Path, max_tokens: int, pad_token_id: int = 0) -> None:
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        """SHA-256 of the file: texts are cached by what reads them."""
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_tokens)
        # The file may ask for a fixed length, which would cost every short title.
        self._tokenizer.enable_padding(
            pad_id=pad_token_id,
            pad_token=self._tokenizer.id_to_token(pad_token_id) or "[PAD]",
        )

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize in one call.

        Args:
            texts: at least one; an empty text gives the special tokens alone.

        Returns:
            ``input_ids`` and ``attention_mask``, each ``(len(texts), longest)`` int64.
        """
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        input_ids = torch.tensor([row.ids for row in encoded], dtype=torch.int64)
        attention_mask = torch.tensor([row.attention_mask for row in encoded], dtype=torch.int64)
        return input_ids, attention_mask
