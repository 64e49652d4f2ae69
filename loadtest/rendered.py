"""Requests as bytes, each fresh: one part of it can be another one every time it is sent.

A worker keeps the embeddings of products that it has encoded. New products that are sent in
turns would be new only once, so each carries a number that changes.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from loadtest.offers import Picture
from loadtest.traffic import Kind

__all__ = ["Rendered", "as_form", "as_json", "as_picture", "fresh_picture", "fresh_text"]

_FRESH_DIGITS = 16
"""A multiple of four: in base64, the digits then are three bytes for four of them."""
_MARK = "\x00fresh\x00"
_BOUNDARY = "newshelf-4f1c9a62d0"
_OK = 200


@dataclass(frozen=True, slots=True)
class Rendered:
    """One ``POST`` whose body is ``before``, a number if it is a fresh one, and ``after``."""

    kind: Kind
    path: str
    content_type: str
    before: bytes
    after: bytes = b""
    fresh: bool = False
    expected: int = _OK
    """The status of the right answer."""

    @property
    def size(self) -> int:
        """Bytes of the body, which are always as many."""
        return len(self.before) + len(self.after) + _FRESH_DIGITS * self.fresh

    def body(self, number: int) -> bytes:
        """The body with this number, of at most 16 digits."""
        return b"%b%016d%b" % (self.before, number, self.after) if self.fresh else self.before

    def after_head(self, head: bytes) -> "Rendered":
        """The same with the bytes of an HTTP head in front, so that ``body`` gives all of it."""
        return replace(self, before=head + self.before)


def as_json(kind: Kind, path: str, body: Mapping[str, Any]) -> Rendered:
    """As JSON, fresh when there is a ``fresh_text`` or ``fresh_picture`` in it."""
    text = json.dumps(body)
    before, mark, after = text.partition(json.dumps(_MARK)[1:-1])
    return Rendered(
        kind, path, "application/json", before.encode(), after.encode(), fresh=bool(mark)
    )


def fresh_text(text: str) -> str:
    """The text, and a number that changes."""
    return f"{text} {_MARK}"


def fresh_picture(picture: Picture) -> str:
    """The picture in base64, and bytes after it that change.

    Picture formats end by themselves: what follows is not decoded.
    """
    padded = picture.data + bytes(-len(picture.data) % 3)
    return base64.b64encode(padded).decode("ascii") + _MARK


def as_picture(kind: Kind, path: str, picture: Picture) -> Rendered:
    """A bare picture."""
    return Rendered(kind, path, picture.media_type, picture.data, fresh=True)


def as_form(kind: Kind, path: str, fields: Mapping[str, Any], picture: Picture) -> Rendered:
    """A form with the fields as text and the picture as a file."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="image"; filename="image"\r\n'
        f"Content-Type: {picture.media_type}\r\n\r\n"
    )
    return Rendered(
        kind,
        path,
        f"multipart/form-data; boundary={_BOUNDARY}",
        "".join(parts).encode() + picture.data,
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
        fresh=True,
    )
