"""Products and decoded pictures to the encoder's input tensors, on the worker's device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from newshelf.catalog.schema import Product
from newshelf.nn.inputs import Tokenizer, attribute_row, prepare_pictures
from newshelf.nn.spec import EncoderSpec

__all__ = ["InputBuilder"]


class InputBuilder:
    """Builds the six inputs that ``newshelf.nn.encoder.Encoder.forward`` names.

    Args:
        spec: which towers there are, and what they want.
        tokenizer: None exactly when there is no text tower.
        device: where every tensor ends up.
    """

    def __init__(
        self, spec: EncoderSpec, tokenizer: Tokenizer | None, device: torch.device
    ) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._device = device

    def pictures(self, pictures: Sequence[Tensor]) -> Tensor:
        """``(3, height, width)`` uint8 each → ``(N, 3, size, size)`` float32 on the device."""
        if self._spec.image is None:
            return torch.zeros((0, 3, 1, 1), device=self._device)
        return prepare_pictures(pictures, self._spec.image, self._device)

    def inputs(
        self, products: Sequence[Product], images: Tensor, image_row: Sequence[int]
    ) -> dict[str, Tensor]:
        """The encoder's inputs for one forward.

        Args:
            products: the ``B`` rows.
            images: from ``pictures``, ``(N, 3, size, size)``, on the device.
            image_row: for each of them its row, in ``0 … B - 1``.

        Returns:
            Tensors on the device by input name. Rows without text or picture are simply
            not listed; one padding entry of row ``B`` stands in when none is.
        """
        rows = list(image_row)
        if not rows:
            rows = [len(products)]
            images = images.new_zeros((1, *images.shape[1:]))
        input_ids, attention_mask, text_row = self._texts(products)
        attributes = [attribute_row(product, self._spec.attributes) for product in products]
        return {
            "image": images,
            "image_row": self._place(torch.tensor(rows)),
            "input_ids": self._place(input_ids),
            "attention_mask": self._place(attention_mask),
            "text_row": self._place(text_row),
            "attributes": self._place(torch.tensor(attributes)),
        }

    def _texts(self, products: Sequence[Product]) -> tuple[Tensor, Tensor, Tensor]:
        if self._tokenizer is None:
            one = torch.ones((1, 1), dtype=torch.int64)
            return one, one, torch.tensor([len(products)])
        texts = {row: text for row, product in enumerate(products) if (text := product.text())}
        # The special tokens alone are a valid text, and so a safe padding.
        chosen = texts or {len(products): ""}
        input_ids, attention_mask = self._tokenizer.batch(list(chosen.values()))
        return input_ids, attention_mask, torch.tensor(list(chosen))

    def _place(self, tensor: Tensor) -> Tensor:
        # Kilobytes: pinning them first would cost more than it saves.
        return tensor.to(self._device, non_blocking=self._device.type == "cuda")
