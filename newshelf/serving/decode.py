"""Pictures to the encoder's input, behind one function; what fails is a value.

On the CPU a pool of threads decodes, each into its row of one array. On a GPU a batch is
decoded there. Which of the two it is, only ``open_reader`` knows.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from newshelf.errors import BadPicture, DeadlineExceeded, NewshelfError, RequestError
from newshelf.nn.inputs import prepare_picture
from newshelf.nn.spec import ImageInput
from newshelf.serving.deadline import refuse_late
from newshelf.serving.products import ProductInput
from newshelf.serving.runtimes import Array, Device

__all__ = ["CpuReader", "GpuReader", "Pictures", "Reader", "open_reader"]

_LOG = logging.getLogger(__name__)
_CHECKED_ONLY = ImageInput(
    architecture="none", features=1, size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
"""For a model without an image tower: a damaged picture is refused all the same."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What became of N pictures."""

    images: Array
    """``(N, 3, size, size)`` float32; the rows of failed ones hold nothing of meaning."""
    failed: Mapping[int, NewshelfError]
    """Why not, by position."""


class Reader(Protocol):
    """Decodes, crops, resizes and normalises."""

    def start(self, inputs: Sequence[ProductInput]) -> Callable[[], Pictures]:
        """Begin with the pictures of ``inputs``, each of which has one.

        Returns:
            What waits for the result, or decodes only then.
        """
        ...


def open_reader(
    spec: ImageInput | None, device: Device, *, max_pixels: int, threads: int
) -> Reader:
    """The way to read pictures for ``device``.

    Args:
        spec: the image tower's input; None checks the pictures only.
        device: where the encoder runs.
        max_pixels: of one picture.
        threads: that decode at a time, on the CPU.
    """
    if device.kind == "cuda" and spec is not None:
        return GpuReader(spec, device, max_pixels=max_pixels)
    return CpuReader(spec or _CHECKED_ONLY, max_pixels=max_pixels, threads=threads)


class CpuReader:
    """Decodes in threads, which Pillow and numpy let run side by side.

    One picture, or all of them with one thread, are decoded by whoever waits for them. Where
    workers keep every core busy, a thread that decodes beside the arithmetic only takes turns
    with it, and small forwards for its sake are lost: by turns and with all eight pictures in one
    forward, two workers on two cores computed 4 % more of 400 × 300, and 8 % more of 1200 × 900.

    Args:
        spec: the image tower's input.
        max_pixels: of one picture.
        threads: pictures decoded at a time.
    """

    def __init__(self, spec: ImageInput, *, max_pixels: int, threads: int) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._process = os.getpid()

    def start(self, inputs: Sequence[ProductInput]) -> Callable[[], Pictures]:
        """See ``Reader.start``."""
        size = self._spec.size
        images = np.empty((len(inputs), 3, size, size), dtype=np.float32)
        rows = list(zip(inputs, images, strict=True))
        if len(inputs) == 1 or self._threads == 1:
            return lambda: _read(images, [self._read_one(item, row) for item, row in rows])
        pool = self._own_pool()
        jobs = [pool.submit(self._read_one, item, row) for item, row in rows]
        return lambda: _read(images, [job.result() for job in jobs])

    def _own_pool(self) -> ThreadPoolExecutor:
        """This process's: threads do not follow into a fork."""
        if self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
            self._process = os.getpid()
        return self._pool

    def _read_one(self, item: ProductInput, row: NDArray[np.float32]) -> NewshelfError | None:
        try:
            refuse_late(item.deadline_s)
            prepare_picture(item.picture or b"", self._spec, row, max_pixels=self._max_pixels)
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


class GpuReader:
    """Decodes on a GPU; see ``newshelf.nn.inputs.gpu``.

    Args:
        spec: the image tower's input.
        device: the GPU.
        max_pixels: of one picture.
    """

    def __init__(self, spec: ImageInput, device: Device, *, max_pixels: int) -> None:
        self._spec = spec
        self._device = device
        self._max_pixels = max_pixels

    def start(self, inputs: Sequence[ProductInput]) -> Callable[[], Pictures]:
        """See ``Reader.start``; the work is done when it is waited for."""
        return lambda: self._read_all(inputs)

    def _read_all(self, inputs: Sequence[ProductInput]) -> Pictures:
        import torch  # noqa: PLC0415

        from newshelf.nn.inputs.gpu import decode_on_gpu  # noqa: PLC0415

        images, failed = decode_on_gpu(
            [item.picture or b"" for item in inputs],
            self._spec,
            torch.device(str(self._device)),
            max_pixels=self._max_pixels,
        )
        for at, error in failed.items():
            error.field = inputs[at].field("image")
        return Pictures(images, failed)


def _read(images: NDArray[np.float32], results: Sequence[NewshelfError | None]) -> Pictures:
    return Pictures(images, {at: error for at, error in enumerate(results) if error})
