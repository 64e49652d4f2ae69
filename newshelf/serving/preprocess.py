"""Products to the encoder's inputs, as numpy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.catalog.schema import Product
from newshelf.nn.inputs import Tokenizer, attribute_row, pad_tokens
from newshelf.nn.spec import EncoderSpec
from newshelf.serving.runtimes import Array

__all__ = ["Content", "InputBuilder"]


@dataclass(frozen=True, slots=True)
class Content:
    """All that the encoder reads of a product beside its picture."""

    text: str
    """Title and description; empty without either, or without a text tower."""
    attributes: tuple[int, ...]
    """One row of the ``attributes`` input."""


class InputBuilder:
    """Builds the six inputs that ``newshelf.nn.encoder.Encoder.forward`` names.

    Args:
        spec: which towers there are, and what they want.
        tokenizer: None exactly when there is no text tower.
        pad_images: give the tower an empty picture where there is none. The runtimes take no
            picture at all on the CPU, which saves a text most of its time.
    """

    def __init__(
        self, spec: EncoderSpec, tokenizer: Tokenizer | None, *, pad_images: bool = False
    ) -> None:
        self._spec = spec
        self._pad_images = pad_images
        self._tokenizer = tokenizer
        # The special tokens alone are a valid text, and so a safe padding.
        self._no_text = tokenizer.tokens([""])[0] if tokenizer else [1]

    def content(self, product: Product) -> Content:
        """What the encoder will read of ``product``."""
        text = "" if self._tokenizer is None else product.text()
        return Content(text, tuple(attribute_row(product, self._spec.attributes)))

    def tokens(self, contents: Sequence[Content]) -> list[list[int]]:
        """The token ids of each, in one call; an empty list where no text can be read."""
        if self._tokenizer is None:
            return [[] for _ in contents]
        tokens = iter(self._tokenizer.tokens([item.text for item in contents if item.text]))
        return [next(tokens) if item.text else [] for item in contents]

    def inputs(
        self,
        contents: Sequence[Content],
        tokens: Sequence[Sequence[int]],
        images: "Array | None",
        image_row: Sequence[int],
    ) -> dict[str, Array]:
        """The encoder's inputs for one forward.

        Args:
            contents: the ``B`` rows.
            tokens: of each, from ``tokens``.
            images: ``(N, 3, size, size)`` float32; None for none.
            image_row: for each of them its row, in ``0 … B - 1``.

        Returns:
            Inputs by name; ``images`` stay where they are, the others are numpy arrays. Rows
            without text or picture are simply not listed. When none has a text, one padding
            entry of row ``B`` stands in; likewise a picture, where they are padded.
        """
        if images is None or not len(image_row) or self._spec.image is None:
            images = self._no_images()
            image_row = [len(contents)] * len(images)
        rows = [row for row, ids in enumerate(tokens) if ids]
        chosen = [tokens[row] for row in rows]
        pad_id = self._spec.text.pad_token_id if self._spec.text else 0
        input_ids, attention_mask = pad_tokens(chosen or [self._no_text], pad_id)
        attributes = [item.attributes for item in contents]
        return {
            "image": images,
            "image_row": np.array(image_row, dtype=np.int64),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "text_row": np.array(rows or [len(contents)], dtype=np.int64),
            "attributes": np.array(attributes, dtype=np.int64),
        }

    def _no_images(self) -> NDArray[np.float32]:
        if self._spec.image is None:
            return np.zeros((1, 3, 1, 1), dtype=np.float32)
        size = self._spec.image.size
        return np.zeros((int(self._pad_images), 3, size, size), dtype=np.float32)
