"""Requests as bytes: good ones, which can differ each time they are sent, and bad ones.

Workers cache the embeddings of products that they have encoded. A new product that is sent
repeatedly would be new only once, so each copy carries a different number.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from loadtest.traffic import BAD, Kind

_FRESH_DIGITS = 16
"""A multiple of four: in base64, the digits then are three bytes for four of them."""
_MARK = "\x00fresh\x00"
_BOUNDARY = "newshelf-4f1c9a62d0"
_OK = 200
_JSON = "application/json"
_TOO_MANY = ",".join(['{"title": "ring"}'] * 65)


@dataclass(frozen=True)
class Picture:
    """A picture file's bytes."""

    data: bytes
    media_type: str


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


def _bad(path: str, body: str, expected: int, content_type: str = _JSON) -> Rendered:
    return Rendered(BAD, path, content_type, body.encode(), expected=expected)


def _to_encoder(body: str, expected: int, content_type: str = _JSON) -> Rendered:
    return _bad("/predictions/encoder", body, expected, content_type)


def _to_recommender(body: str, expected: int, content_type: str = _JSON) -> Rendered:
    return _bad("/predictions/recommender", body, expected, content_type)


BAD_FOR_ENCODER = (
    _to_encoder('{"title": "ring"', 400),
    _to_encoder('{"title": "ring", "colour": "red"}', 422),
    _to_encoder('{"title": 7}', 422),
    _to_encoder("no picture at all", 422, "image/jpeg"),
    _to_encoder(f'{{"instances": [{_TOO_MANY}]}}', 413),
    _to_encoder("title=ring", 415, "application/x-www-form-urlencoded"),
)
BAD_FOR_RECOMMENDER = (
    _to_recommender('{"history": [', 400),
    _to_recommender('{"histroy": []}', 422),
    _to_recommender('{"history": [], "k": 1000000}', 422),
    _to_recommender('{"history": [{"price": 3}]}', 422),
    _to_recommender('{"history": [], "candidates": ["nobody knows this one"]}', 404),
    _to_recommender("\xff\xd8\xff", 415, "image/jpeg"),
)
