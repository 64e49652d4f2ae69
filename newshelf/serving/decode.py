"""Base64 and pictures, decoded in a thread pool; what fails is a value, not an exception."""

import binascii
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from newshelf.errors import BadPicture, InvalidField, RequestError, TooLarge
from newshelf.nn.inputs import decode_picture
from newshelf.serving.limits import Limits
from newshelf.serving.products import Picture, ProductInput

__all__ = ["PictureDecoder"]

_LOG = logging.getLogger(__name__)


class PictureDecoder:
    """Decodes the pictures of a batch side by side, in order.

    Args:
        limits: bytes and pixels of one picture.
        threads: pictures decoded at a time.
        short_side: the tower's own size in pixels, which lets a large JPEG be decoded at
            a fraction of its size.
    """

    def __init__(self, limits: Limits, threads: int, short_side: int | None = None) -> None:
        self._limits = limits
        self._short_side = short_side
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def decode(self, inputs: Sequence[ProductInput]) -> Iterator[Tensor | RequestError]:
        """Yield, for each input (which must have a picture), its pixels or its error.

        At most ``threads + 1`` pictures wait decoded, so a request of many large pictures
        does not hold them all in memory.

        Yields:
            ``(3, height, width)`` uint8 on the CPU, or the reason why not.
        """
        if len(inputs) == 1:
            yield self.decode_one(inputs[0])
            return
        ahead: deque[Future[Tensor | RequestError]] = deque()
        for item in inputs:
            ahead.append(self._pool.submit(self.decode_one, item))
            if len(ahead) > self._threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def decode_one(self, item: ProductInput) -> Tensor | RequestError:
        """Decode one picture in the calling thread."""
        field = item.field("image")
        try:
            return decode_picture(
                _picture_bytes(item.picture or b"", self._limits.max_picture_bytes),
                max_pixels=self._limits.max_pixels,
                short_side=self._short_side,
            )
        except RequestError as error:
            error.field = field
            return error
        except Exception:
            # Decoders fail in many ways on hostile bytes; none of them is worth a batch.
            _LOG.warning("a picture could not be decoded", exc_info=True)
            return BadPicture("the picture cannot be decoded", field=field)


def _picture_bytes(picture: Picture, max_bytes: int) -> bytes | bytearray:
    if not isinstance(picture, str):
        if len(picture) > max_bytes:
            raise TooLarge(
                f"the picture has {len(picture)} bytes; at most {max_bytes} are accepted"
            )
        return picture
    if picture[:8].lower().startswith(("http:", "https:")):
        raise InvalidField("URLs are not fetched; send the picture's bytes in base64")
    if picture.startswith("data:"):
        picture = picture.partition(",")[2]
    # Some encoders break lines; nothing else may stand between the digits.
    digits = "".join(picture.split())
    if len(digits) // 4 * 3 > max_bytes + 3:
        raise TooLarge(
            f"the picture has about {len(digits) // 4 * 3} bytes; at most {max_bytes} are accepted"
        )
    try:
        return binascii.a2b_base64(digits, strict_mode=True)
    except ValueError as error:
        raise InvalidField(f"not base64: {error}") from error
