"""The tiny model of the export's tests, and pictures made by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from newshelf.nn.encoder import Encoder
from newshelf.nn.inputs import Tokenizer
from newshelf.nn.spec import EncoderSpec
from tests.unit.export.tiny_checkpoint import tiny_spec, tokenizer_json


@pytest.fixture(scope="session")
def spec() -> EncoderSpec:
    return tiny_spec().encoder


@pytest.fixture
def encoder(spec) -> Encoder:
    torch.manual_seed(3)
    return Encoder(spec).eval()


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json())
    return Tokenizer(path, 6)


@pytest.fixture(scope="session")
def saved():
    """The bytes of a Pillow picture."""

    def save(picture: Image.Image, kind: str, **options) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        return stream.getvalue()

    return save


@pytest.fixture(scope="session")
def png():
    """A PNG written chunk by chunk: Pillow cannot write 16 bits of each colour."""

    def write(samples: np.ndarray, *, claimed: tuple[int, int] | None = None) -> bytes:
        """``(height, width)`` grey or ``(height, width, 3)``, uint8 or uint16."""
        height, width = samples.shape[:2]
        kind = {2: 0, 3: 2}[samples.ndim]
        depth = 8 * samples.itemsize
        header = struct.pack(">IIBBBBB", *(claimed or (width, height)), depth, kind, 0, 0, 0)
        rows = samples.astype(f">u{samples.itemsize}")
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )

    return write
