"""Decoding, cropping and resizing of pictures on a GPU (nvJPEG), in batches.

Imports torch, and is imported only with a GPU. The CPU decodes what the GPU does not decode
correctly: other formats, CMYK or damaged JPEGs, and whatever its decoder refuses.
"""

import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from newshelf.errors import BadPicture, RequestError
from newshelf.nn.inputs import MAX_PIXELS, centre_box, decode_picture
from newshelf.nn.pinned import to_device
from newshelf.nn.spec import ImageInput

_LOG = logging.getLogger(__name__)
_MAX_BATCH_PIXELS = 64_000_000
"""Pixels per call of the GPU's decoder; each takes three bytes of its memory."""
_END = b"\xff\xd9"
"""Last two bytes of a complete JPEG; the GPU may not notice if they are missing."""


@dataclass(frozen=True, slots=True)
class _Jpeg:
    at: int
    """Its position among the pictures."""
    data: bytes | bytearray
    pixels: int
    orientation: int
    """EXIF's, 1 to 8; 1 is upright."""


def decode_on_gpu(
    pictures: Sequence[bytes | bytearray],
    spec: ImageInput,
    device: torch.device,
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, dict[int, RequestError]]:
    """Decode, orient, crop, resize and normalise on ``device``, a CUDA device.

    Returns ``(N, 3, size, size)`` float32 on ``device``, and errors by position; the rows of
    failed pictures are undefined.

    Raises:
        torch.OutOfMemoryError: fewer pictures may fit.
        torch.AcceleratorError: the GPU fails, whatever the pictures.
    """
    squares = torch.zeros((len(pictures), 3, spec.size, spec.size), device=device)
    done: set[int] = set()
    for number, jpegs in enumerate(_jpeg_batches(pictures, max_pixels)):
        if number and device.type == "cuda":
            # The decoder's next call may overwrite what queued work still reads
            # (pytorch/vision issue 9606).
            torch.cuda.current_stream(device).synchronize()
        decoded = _decoded(jpegs, device)
        for ats, cropped in _by_size(decoded, spec):
            squares.index_copy_(0, to_device(torch.tensor(ats), device), resize(cropped, spec))
        done |= decoded.keys()
    failed: dict[int, RequestError] = {}
    for at in range(len(pictures)):
        if at in done:
            continue
        try:
            pixels = decode_picture(pictures[at], spec, max_pixels=max_pixels)
        except RequestError as error:
            failed[at] = error
        except Exception:
            # Decoders raise many exceptions on hostile bytes; none may fail the batch.
            _LOG.warning("a picture could not be decoded", exc_info=True)
            failed[at] = BadPicture("the picture cannot be decoded")
        else:
            squares[at] = to_device(torch.tensor(pixels).permute(2, 0, 1), device)
    return normalise_pictures(squares, spec), failed


def crop(picture: Tensor, spec: ImageInput) -> Tensor:
    """Return the centre of ``(3, height, width)`` as ``(3, side, side)``."""
    left, top, right, bottom = centre_box(picture.shape[2], picture.shape[1], spec.crop)
    return picture[:, top:bottom, left:right]


def resize(squares: Tensor, spec: ImageInput) -> Tensor:
    """Return ``(N, 3, side, side)`` uint8 as ``(N, 3, size, size)`` float32, 0 … 255."""
    if squares.shape[3] == spec.size:
        return squares.float()
    size = (spec.size, spec.size)
    return F.interpolate(
        squares.float(), size=size, mode="bilinear", antialias=True, align_corners=False
    )


def normalise_pictures(squares: Tensor, spec: ImageInput) -> Tensor:
    """Change ``(N, 3, size, size)`` float32 in 0 … 255 to ``(pixels / 255 - mean) / std``."""
    # Numbers go along with the kernels; tensors of them would be copied, and waited for.
    for channel, mean, std in zip(squares.unbind(1), spec.mean, spec.std, strict=True):
        channel.sub_(255.0 * mean).div_(255.0 * std)
    return squares


def _jpeg_batches(pictures: Sequence[bytes | bytearray], max_pixels: int) -> Iterator[list[_Jpeg]]:
    """Yield the pictures that the GPU can decode, in batches that fit into its memory."""
    batch: list[_Jpeg] = []
    for at, data in enumerate(pictures):
        jpeg = _as_jpeg(at, data)
        if jpeg is None or jpeg.pixels > max_pixels:
            continue
        if batch and sum(item.pixels for item in batch) + jpeg.pixels > _MAX_BATCH_PIXELS:
            yield batch
            batch = []
        batch.append(jpeg)
    if batch:
        yield batch


def _as_jpeg(at: int, data: bytes | bytearray) -> _Jpeg | None:
    """Read a JPEG's header; return None if the GPU cannot decode the picture reliably."""
    if bytes(data[-2:]) != _END:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if picture.mode not in ("RGB", "L"):
                return None
            width, height = picture.size
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # The CPU's decoder has the better error messages.
        _LOG.debug("a picture is left to the CPU", exc_info=True)
        return None
    return _Jpeg(at, data, width * height, orientation if orientation in range(1, 9) else 1)


def _decoded(jpegs: Sequence[_Jpeg], device: torch.device) -> dict[int, Tensor]:
    """Return upright pictures, ``(3, height, width)`` uint8, by position, without refused ones."""
    # A bytearray, because torch warns about read-only buffers.
    data = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
    try:
        pictures = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError:
        if len(jpegs) == 1:
            _LOG.info("a JPEG is decoded on the CPU instead", exc_info=True)
            return {}
        # Only the refused one leaves the GPU.
        middle = len(jpegs) // 2
        return _decoded(jpegs[:middle], device) | _decoded(jpegs[middle:], device)
    return {
        jpeg.at: _oriented(picture, jpeg.orientation)
        for jpeg, picture in zip(jpegs, pictures, strict=True)
    }


def _by_size(
    pictures: Mapping[int, Tensor], spec: ImageInput
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield cropped pictures of one size: their positions, and ``(N, 3, side, side)``."""
    found: dict[int, dict[int, Tensor]] = defaultdict(dict)
    for at, picture in pictures.items():
        square = crop(picture, spec)
        found[square.shape[2]][at] = square
    for squares in found.values():
        yield list(squares), torch.stack(list(squares.values()))


def _oriented(picture: Tensor, orientation: int) -> Tensor:
    """Return a ``(3, height, width)`` picture oriented by EXIF's ``orientation``."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture.flip(2)
    if orientation in (3, 4, 7, 8):
        picture = picture.flip(1)
    return picture
