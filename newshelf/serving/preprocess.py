"""Inputs of the encoder: texts and attributes as arrays, and pictures by a reader.

On the CPU, a pool of threads decodes pictures, each into its row of one array; on a GPU, they are
decoded there as a batch.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from newshelf.catalog.schema import Product
from newshelf.errors import BadPicture, DeadlineExceeded, NewshelfError, RequestError
from newshelf.nn.inputs import Tokenizer, attribute_row, pad_tokens, prepare_picture
from newshelf.nn.spec import EncoderSpec, ImageInput
from newshelf.serving.products import ProductInput
from newshelf.serving.protocol import refuse_late
from newshelf.serving.runtimes.base import Array, Device


@dataclass(frozen=True, slots=True)
class Content:
    """All that the encoder reads of a product except its picture."""

    text: str
    """Title and description; empty without either, or without a text tower."""
    attributes: tuple[int, ...]
    """One row of the ``attributes`` input."""


@dataclass(eq=False)
class InputBuilder:
    """Builds the six inputs that ``newshelf.nn.encoder.Encoder.forward`` names.

    ``on_gpu``, the tower gets an empty picture where there is none. The runtimes take no
    picture at all on the CPU, which saves a text most of its time.
    """

    spec: EncoderSpec
    tokenizer: Tokenizer | None
    on_gpu: bool = False

    def __post_init__(self) -> None:
        # The special tokens alone are a valid text, and so a safe padding.
        self._no_text = self.tokenizer.tokens([""])[0] if self.tokenizer else [1]

    def content(self, product: Product) -> Content:
        """Return the parts of ``product`` that the encoder reads."""
        text = "" if self.tokenizer is None else product.text()
        return Content(text, tuple(attribute_row(product, self.spec.attributes)))

    def tokens(self, contents: Sequence[Content]) -> list[list[int]]:
        """The token ids of each, in one call; an empty list where no text can be read."""
        if self.tokenizer is None:
            return [[] for _ in contents]
        tokens = iter(self.tokenizer.tokens([item.text for item in contents if item.text]))
        return [next(tokens) if item.text else [] for item in contents]

    def inputs(
        self,
        contents: Sequence[Content],
        tokens: Sequence[Sequence[int]],
        images: "Array | None",
        image_row: Sequence[int],
    ) -> dict[str, Array]:
        """The encoder's inputs by name for one forward of ``B`` rows.

        ``images`` are ``(N, 3, size, size)`` float32 for the rows ``image_row``; they stay where
        they are, the others are numpy arrays. Rows without text or picture are simply not listed.
        When none has a text, one padding entry of row ``B`` stands in; likewise a picture, where
        they are padded.
        """
        if images is None or not len(image_row) or self.spec.image is None:
            size, count = 1, 1
            if self.spec.image is not None:
                size, count = self.spec.image.size, int(self.on_gpu)
            images = np.zeros((count, 3, size, size), dtype=np.float32)
            image_row = [len(contents)] * len(images)
        rows = [row for row, ids in enumerate(tokens) if ids]
        chosen = [tokens[row] for row in rows]
        pad_id = self.spec.text.pad_token_id if self.spec.text else 0
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


_LOG = logging.getLogger(__name__)
_CHECKED_ONLY = ImageInput(
    architecture="none", features=1, size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
"""For a model without an image tower: a damaged picture is refused all the same."""


@dataclass(frozen=True, slots=True)
class DecodedPictures:
    """The results of N pictures."""

    images: Array
    """``(N, 3, size, size)`` float32; the rows of failed ones hold nothing of meaning."""
    failed: Mapping[int, NewshelfError]


class Reader(Protocol):
    """Decodes, crops, resizes and normalises."""

    def start(self, inputs: Sequence[ProductInput]) -> Callable[[], DecodedPictures]:
        """Begin with the pictures of ``inputs``; return what waits for them, or decodes then."""
        ...


def open_reader(
    spec: ImageInput | None, device: Device, *, max_pixels: int, threads: int
) -> Reader:
    """The way to read pictures for ``device``; without ``spec`` it checks the pictures only."""
    if device.kind == "cuda" and spec is not None:
        return GpuReader(spec, device, max_pixels=max_pixels)
    return CpuReader(spec or _CHECKED_ONLY, max_pixels=max_pixels, threads=threads)


@dataclass(eq=False)
class CpuReader:
    """Decodes in threads, which Pillow and numpy let run side by side.

    One picture, or all of them with one thread, are decoded by whoever waits for them. Where
    workers keep every core busy, a thread that decodes next to the arithmetic only alternates with
    it, and small forwards for its sake are lost: alternately, with all eight pictures in one
    forward, two workers on two cores computed 4 % more of 400 × 300 pixels, and 8 % more of 1200 ×
    900.
    """

    spec: ImageInput
    max_pixels: int
    threads: int

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
        self._process = os.getpid()

    def start(self, inputs: Sequence[ProductInput]) -> Callable[[], DecodedPictures]:
        """See ``Reader.start``."""
        size = self.spec.size
        images = np.empty((len(inputs), 3, size, size), dtype=np.float32)
        rows = list(zip(inputs, images, strict=True))
        if len(inputs) == 1 or self.threads == 1:
            return lambda: _read(images, [self._read_one(item, row) for item, row in rows])
        pool = self._own_pool()
        jobs = [pool.submit(self._read_one, item, row) for item, row in rows]
        return lambda: _read(images, [job.result() for job in jobs])

    def _own_pool(self) -> ThreadPoolExecutor:
        """This process's: threads do not follow into a fork."""
        if self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
            self._process = os.getpid()
        return self._pool

    def _read_one(self, item: ProductInput, row: NDArray[np.float32]) -> NewshelfError | None:
        try:
            refuse_late(item.deadline_s)
            prepare_picture(item.picture or b"", self.spec, row, max_pixels=self.max_pixels)
        except DeadlineExceeded as error:
            return error
        except RequestError as error:
            error.field = item.field("image")
            return error
        except Exception:
            # Decoders fail in many ways on hostile bytes; none of them is worth a batch.
            _LOG.warning("a picture could not be decoded", exc_info=True)
            return BadPicture("the picture cannot be decoded", field=item.field("image"))
        return None


@dataclass(frozen=True)
class GpuReader:
    """Decodes on a GPU; see ``newshelf.nn.gpu_inputs``."""

    spec: ImageInput
    device: Device
    max_pixels: int

    def start(self, inputs: Sequence[ProductInput]) -> Callable[[], DecodedPictures]:
        """See ``Reader.start``; the work is done when it is waited for."""
        return lambda: self._read_all(inputs)

    def _read_all(self, inputs: Sequence[ProductInput]) -> DecodedPictures:
        import torch  # noqa: PLC0415

        from newshelf.nn.gpu_inputs import decode_on_gpu  # noqa: PLC0415

        images, failed = decode_on_gpu(
            [item.picture or b"" for item in inputs],
            self.spec,
            torch.device(str(self.device)),
            max_pixels=self.max_pixels,
        )
        for at, error in failed.items():
            error.field = inputs[at].field("image")
        return DecodedPictures(images, failed)


def _read(images: NDArray[np.float32], results: Sequence[NewshelfError | None]) -> DecodedPictures:
    return DecodedPictures(images, {at: error for at, error in enumerate(results) if error})
