"""How much the ways of decoding change what the image tower makes of a picture.

A picture decoded whole is the measure. Beside it stand what a worker on the CPU does (a large
JPEG decoded at a fraction of its size) and a GPU's arithmetic, run by torch on the CPU, so that
no GPU is needed to judge it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.inputs import decode_picture, decode_rgb, prepare_pictures
from newshelf.nn.spec import ImageInput

__all__ = ["DecodeAgreement", "decode_agreement"]

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class DecodeAgreement:
    """Cosines ``(N,)`` to the embeddings of pictures that are decoded whole."""

    cpu: NDArray[np.float64]
    gpu: NDArray[np.float64]

    def least(self) -> float:
        """The worse way's mean: what is held against the gate of a precision (0.99)."""
        return float(min(self.cpu.mean(), self.gpu.mean()))


def decode_agreement(pictures: Sequence[bytes], spec: ImageInput, embed: Embed) -> DecodeAgreement:
    """Compare the two ways in which serving reads pictures with the plainest one.

    Args:
        pictures: the bytes of N pictures; JPEGs of more than twice the tower's size tell most.
        spec: the image tower's input.
        embed: ``(N, 3, size, size)`` float32, normalised → ``(N, features)``.
    """
    whole = embed(prepare_pictures([_whole(data, spec) for data in pictures], spec))
    scaled = embed(prepare_pictures([decode_picture(data, spec) for data in pictures], spec))
    return DecodeAgreement(
        cpu=_cosines(whole, scaled), gpu=_cosines(whole, embed(_by_torch(pictures, spec)))
    )


def _whole(data: bytes, spec: ImageInput) -> NDArray[np.uint8]:
    return decode_picture(data, spec, scaled=False)


def _by_torch(pictures: Sequence[bytes], spec: ImageInput) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415

    from newshelf.nn.gpu_inputs import crop, normalise_pictures, resize  # noqa: PLC0415

    decoded = [torch.tensor(np.asarray(decode_rgb(data))).permute(2, 0, 1) for data in pictures]
    squares = torch.cat([resize(crop(picture, spec)[None], spec) for picture in decoded])
    return normalise_pictures(squares, spec).numpy()


def _cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: NDArray[np.float64] = (a * b).sum(axis=1) / lengths
    return cosines
