"""Bytes to pixels, as a person sees them."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image

from newshelf.catalog.schema import picture_kind
from newshelf.errors import BadPicture, TooLarge
from newshelf.nn.inputs import decode_rgb


def quarters(width: int = 48, height: int = 32) -> Image.Image:
    """Red and green above, blue and white below: every turn of it looks different."""
    picture = Image.new("RGB", (width, height), "white")
    picture.paste("red", (0, 0, width // 2, height // 2))
    picture.paste("lime", (width // 2, 0, width, height // 2))
    picture.paste("blue", (0, height // 2, width // 2, height))
    return picture


def decoded(data, **options) -> np.ndarray:
    """``(3, height, width)`` uint8."""
    picture = decode_rgb(data, **options)
    assert picture.mode == "RGB"
    return np.asarray(picture).transpose(2, 0, 1)


def corners(pixels: np.ndarray) -> list[str]:
    """Names of the colours at the four corners, left to right, top to bottom."""
    named = {(1, 0, 0): "red", (0, 1, 0): "lime", (0, 0, 1): "blue", (1, 1, 1): "white"}
    height, width = pixels.shape[1:]
    places = [(y, x) for y in (3, height - 4) for x in (3, width - 4)]
    return [named[tuple((pixels[:, y, x] > 127).astype(int).tolist())] for y, x in places]


@pytest.mark.parametrize(("kind", "slack"), [("PNG", 0), ("GIF", 0), ("WEBP", 12), ("JPEG", 12)])
def test_every_format_gives_its_pixels(saved, kind, slack):
    pixels = decoded(saved(quarters(), kind))
    assert pixels.shape == (3, 32, 48)
    expected = np.array(quarters()).transpose(2, 0, 1)
    # Away from the edges, where a lossy format rings.
    far = np.abs(pixels.astype(int) - expected)[:, 2:12, 2:20]
    assert far.max() <= slack
    assert corners(pixels) == ["red", "lime", "blue", "white"]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_may_come_in_any_buffer(saved, wrap):
    assert decoded(wrap(saved(quarters(), "PNG"))).shape == (3, 32, 48)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, ["red", "lime", "blue", "white"]),
        (2, ["lime", "red", "white", "blue"]),
        (3, ["white", "blue", "lime", "red"]),
        (4, ["blue", "white", "red", "lime"]),
        (5, ["red", "blue", "lime", "white"]),
        (6, ["blue", "red", "white", "lime"]),
        (7, ["white", "lime", "blue", "red"]),
        (8, ["lime", "white", "red", "blue"]),
    ],
)
def test_exif_orientation_turns_the_picture(saved, kind, orientation, expected):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = decoded(saved(quarters(), kind, exif=exif))
    assert pixels.shape[1:] == ((32, 48) if orientation < 5 else (48, 32))
    assert corners(pixels) == expected


def test_cmyk_comes_out_in_its_colours(saved):
    pixels = decoded(saved(quarters().convert("CMYK"), "JPEG", quality=95))
    assert corners(pixels) == ["red", "lime", "blue", "white"]


def test_sixteen_bit_grey_is_scaled_not_clipped(png):
    levels = np.array([[0, 255, 256, 1000, 32768, 65279, 65535]], dtype=np.uint16)
    pixels = decoded(png(levels))
    assert pixels[0, 0].tolist() == [0, 1, 1, 4, 128, 254, 255]
    assert (pixels == pixels[0]).all()


def test_sixteen_bit_colour_keeps_its_high_byte(png):
    levels = np.array([[[65535, 32768, 257], [0, 60000, 300]]], dtype=np.uint16)
    pixels = decoded(png(levels)).transpose(1, 2, 0).astype(int)
    assert np.abs(pixels - [[[255, 128, 1], [0, 233, 1]]]).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_black_and_white_become_rgb(saved, mode):
    pixels = decoded(saved(Image.linear_gradient("L").convert(mode), "PNG"))
    assert pixels.shape == (3, 256, 256)
    assert pixels[:, 0].mean() < 30
    assert pixels[:, -1].mean() > 220


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_what_is_transparent_is_laid_on_white(saved, kind, options, alpha):
    # A see-through pixel has a colour too, which must not show.
    picture = Image.new("RGBA", (6, 6), (200, 0, 100, alpha))
    pixels = decoded(saved(picture, kind, **{"exact": True, **options}))
    share = alpha / 255
    expected = [round(c * share + 255 * (1 - share)) for c in (200, 0, 100)]
    assert np.abs(pixels[:, 2, 2].astype(int) - expected).max() <= 1


def test_grey_with_alpha_is_laid_on_white(saved):
    pixels = decoded(saved(Image.new("LA", (4, 4), (0, 0)), "PNG"))
    assert (pixels == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_entry_is_laid_on_white(saved, kind):
    picture = Image.new("P", (8, 4), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.paste(1, (4, 0, 8, 4))
    pixels = decoded(saved(picture, kind, transparency=0))
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 0, 7].tolist() == [200, 0, 0]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "MPO"])
def test_of_several_frames_the_first_is_taken(saved, kind):
    """MPO is what cameras that take two pictures at once call JPEG."""
    later = [Image.new("RGB", (48, 32), colour) for colour in ("black", "yellow")]
    data = saved(quarters(), kind, save_all=True, append_images=later)
    assert corners(decoded(data)) == ["red", "lime", "blue", "white"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused(saved, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(BadPicture):
        decoded(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"<html><body>not found</body></html>", "no JPEG, PNG, WebP or GIF"),
        (bytes(1000), "no JPEG, PNG, WebP or GIF"),
        (b"\x89PNG\r\n\x1a\n", "damaged|no JPEG"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged|no JPEG"),
    ],
)
def test_what_is_no_picture_is_refused(data, said):
    with pytest.raises(BadPicture, match=said):
        decoded(data)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM", "AVIF", "JPEG2000"])
def test_other_formats_are_refused(saved, kind):
    """Each further decoder is further code for hostile bytes to reach."""
    with pytest.raises(BadPicture, match="no JPEG, PNG, WebP or GIF"):
        decoded(saved(quarters(), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF", "AVIF", "TIFF", "BMP"])
def test_the_kind_follows_from_the_bytes(saved, kind):
    data = saved(quarters(), kind.upper())
    assert picture_kind(data) == picture_kind(memoryview(data)) == kind


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\x01\x02", "JPEG XL"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>", "SVG"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04", "compressed"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\r\n\xff\xd8\xff\xe0", "white space"),
    ],
)
def test_what_is_no_picture_is_named(data, named):
    with pytest.raises(BadPicture, match=f"this is .*{named}.*, and no JPEG"):
        decoded(data)


def product_on_white() -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = np.full((120, 160, 3), 255)
    pixels[30:80, 40:120] = np.array([180, 40, 60]) + rng.integers(-20, 20, (50, 80, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


JPEGS = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"restart_marker_rows": 1},
    {"quality": 30},
    {"subsampling": 0},
]


@pytest.mark.parametrize("least_side", [None, 20])
@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xff"])
def test_a_jpeg_that_lacks_only_its_end_is_read(saved, options, end, least_side):
    whole = saved(product_on_white(), "JPEG", **options)
    assert whole.endswith(b"\xff\xd9")
    pixels = decoded(whole[:-2] + end, least_side=least_side)
    np.testing.assert_array_equal(pixels, decoded(whole, least_side=least_side))


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_that_lacks_more_is_refused(saved, options):
    whole = saved(product_on_white(), "JPEG", **options)
    for cut in (*range(6, 40), *range(40, len(whole), len(whole) // 50)):
        with pytest.raises(BadPicture):
            decoded(whole[:-cut])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_flipped_bytes_give_a_picture_or_a_refusal(saved, kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    clean = saved(quarters(), kind, **({} if kind == "GIF" else {"exif": exif}))
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(150):
        data = np.frombuffer(clean, np.uint8).copy()
        places = rng.integers(0, len(data), int(rng.integers(1, 12)))
        data[places] = rng.integers(0, 256, len(places))
        try:
            outcomes.add(decode_rgb(data.tobytes()).mode)
        except (BadPicture, TooLarge) as error:
            outcomes.add(type(error))
    assert {"RGB", BadPicture} <= outcomes


_FRESH = """
import json, resource, sys
from pathlib import Path
from newshelf.errors import TooLarge
from newshelf.nn.inputs import decode_rgb
bomb, odd = (Path(name).read_bytes() for name in sys.argv[1:])
size = decode_rgb(odd).size
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_rgb(bomb)
except TooLarge:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"grown_kb": grown, "size": size}))
"""


def test_a_fresh_process_neither_swells_nor_complains(saved, png, tmp_path):
    """Refuses a bomb by its header, and says nothing on stderr of damaged metadata.

    10.8 GB would be needed for the bomb's pixels; and a client could fill the log with
    Pillow's warnings, one for each picture.
    """
    bomb, odd = tmp_path / "bomb.png", tmp_path / "odd.jpg"
    bomb.write_bytes(png(np.zeros((1, 1, 3), dtype=np.uint8), claimed=(60_000, 60_000)))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 40
    clean = saved(quarters(), "JPEG", exif=exif)
    # The description claims to be longer than the file.
    odd.write_bytes(clean.replace(b"\x00\x00\x00\x29", b"\x00\x00\xff\xff", 1))
    assert odd.read_bytes() != clean
    with pytest.warns(UserWarning, match="Tag data larger"):
        Image.open(odd).getexif()
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, bomb, odd], capture_output=True, check=True
    )
    assert done.stderr == b""
    result = json.loads(done.stdout)
    assert result["size"] == [48, 32]
    assert result["grown_kb"] < 50_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_cap_counts_pixels_before_decoding(saved, kind, monkeypatch):
    data = saved(quarters(48, 32), kind)
    assert decoded(data, max_pixels=48 * 32).shape == (3, 32, 48)

    def refuse(*_arguments):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("newshelf.nn.inputs._to_rgb", refuse)
    with pytest.raises(TooLarge, match=r"48 × 32 pixels; at most 1535 "):
        decoded(data, max_pixels=48 * 32 - 1)


@pytest.mark.parametrize("size", [(1600, 1200), (1200, 1600), (3000, 500), (450, 449), (130, 90)])
def test_a_fraction_keeps_the_side_that_is_asked_for(saved, size):
    data = saved(quarters(*size), "JPEG")
    small = decoded(data, least_side=224)
    assert min(small.shape[1:]) >= min(224, *size)
    assert corners(small) == corners(decoded(data))
    if min(size) >= 448:
        assert min(small.shape[1:]) < min(size)


def test_decoding_leaves_the_process_warnings_alone(saved):
    before = list(warnings.filters)
    decoded(saved(quarters(), "PNG"))
    assert list(warnings.filters) == before
