"""Detection of a picture file's format by its first bytes."""

import re

READ_KINDS = ("JPEG", "PNG", "WebP", "GIF")
_FIRST = 1_000
"""Bytes to inspect; SVG and HTML may begin with comments."""
_KINDS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb"....ftyp(?:.{4}){0,16}?avi[fs]",
    "HEIC": rb"....ftyp(?:he[iv][cxms]|mif1|msf1)",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM.{4}\0{4}",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
    "an icon (ICO)": rb"\0\0\x01\0",
    "a Photoshop file": rb"8BPS",
    "PDF": rb"%PDF",
    "a compressed file": rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf",
    "a pointer of Git LFS": rb"version https://git-lfs",
    "a picture with white space before it": rb"\s+(?:\xff\xd8\xff|\x89PNG\r|GIF8|RIFF)",
    "SVG": rb"(?:\xef\xbb\xbf)?\s*(?:<[?!][^>]*>\s*)*<svg\b",
    "an HTML page": (
        rb"(?i:(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body)\b)"
    ),
    "XML": rb"(?:\xef\xbb\xbf)?\s*<[?!a-zA-Z]",
}
_PATTERNS = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in _KINDS.items()}


def picture_kind(data: bytes | bytearray | memoryview) -> str | None:
    """Return the format of ``data``; only ``READ_KINDS`` can be read, others are for messages."""
    first = bytes(data[:_FIRST])
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.match(first)), None)
