"""Requests as bytes: good ones, which can differ each time they are sent, and bad ones.

Workers cache the embeddings of products that they have encoded. A new product that is sent
repeatedly would be new only once, so each copy carries a different number.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from loadtest.traffic import BAD

ENCODER = "/predictions/encoder"
RECOMMENDER = "/predictions/recommender"
_FRESH_DIGITS = 16
"""A multiple of four, so that in base64 they are whole groups of three bytes."""
_MARK = "\x00fresh\x00"
_BOUNDARY = "newshelf-4f1c9a62d0"
_OK = 200
_JSON = "application/json"
_TOO_MANY = ",".join(['{"title": "ring"}'] * 65)


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image file."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """One ``POST``: ``before``, a number if the request is fresh, and ``after``."""

    kind: str
    path: str
    content_type: str
    before: bytes
    after: bytes = b""
    fresh: bool = False
    expected: int = _OK
    """The status of the right response."""
    check: Callable[[bytes], str] | None = None
    """Reads the body of such a response; returns the request's result, such as ``right``."""

    @property
    def size(self) -> int:
        """Bytes of the body, the same each time."""
        return len(self.before) + len(self.after) + _FRESH_DIGITS * self.fresh

    def body(self, number: int) -> bytes:
        """Return the body with this number, of at most 16 digits."""
        return b"%b%016d%b" % (self.before, number, self.after) if self.fresh else self.before

    def after_head(self, head: bytes) -> "Rendered":
        """Return a copy whose ``body`` starts with the bytes of an HTTP head."""
        return replace(self, before=head + self.before)


def as_json(kind: str, path: str, body: Mapping[str, Any]) -> Rendered:
    """Return a JSON request, fresh if it contains a ``fresh_text`` or ``fresh_image``."""
    text = json.dumps(body)
    before, mark, after = text.partition(json.dumps(_MARK)[1:-1])
    return Rendered(kind, path, _JSON, before.encode(), after.encode(), fresh=bool(mark))


def fresh_text(text: str) -> str:
    """Return the text, followed by a number that changes."""
    return f"{text} {_MARK}"


def fresh_image(image: ImageFile) -> str:
    """Return the image in base64, followed by bytes that change.

    Image formats mark their own end: decoders ignore what follows.
    """
    padded = image.data + bytes(-len(image.data) % 3)
    return base64.b64encode(padded).decode("ascii") + _MARK


def as_image(kind: str, path: str, image: ImageFile) -> Rendered:
    """Return a request whose body is the image."""
    return Rendered(kind, path, image.media_type, image.data, fresh=True)


def as_form(kind: str, path: str, fields: Mapping[str, Any], image: ImageFile) -> Rendered:
    """Return a form with the fields as text and the image as a file."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="image"; filename="image"\r\n'
        f"Content-Type: {image.media_type}\r\n\r\n"
    )
    return Rendered(
        kind,
        path,
        f"multipart/form-data; boundary={_BOUNDARY}",
        "".join(parts).encode() + image.data,
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
        fresh=True,
    )


def _bad(path: str, body: str, expected: int, content_type: str = _JSON) -> Rendered:
    return Rendered(BAD, path, content_type, body.encode(), expected=expected)


_to_encoder = partial(_bad, ENCODER)
_to_recommender = partial(_bad, RECOMMENDER)

BAD_FOR_ENCODER = (
    _to_encoder('{"title": "ring"', 400),
    _to_encoder('{"title": "ring", "colour": "red"}', 422),
    _to_encoder('{"title": 7}', 422),
    _to_encoder("no picture at all", 422, "image/jpeg"),
    _to_encoder(f'{{"instances": [{_TOO_MANY}]}}', 413),
    _to_encoder("title=ring", 415, "application/x-www-form-urlencoded"),
)
"""Each with the 4xx that it deserves (``docs/api.md``, errors)."""
BAD_FOR_RECOMMENDER = (
    _to_recommender('{"history": [', 400),
    _to_recommender('{"histroy": []}', 422),
    _to_recommender('{"history": [], "k": 1000000}', 422),
    _to_recommender('{"history": [{"price": 3}]}', 422),
    _to_recommender('{"history": [], "candidates": ["nobody knows this one"]}', 404),
    _to_recommender("\xff\xd8\xff", 415, "image/jpeg"),
)

BAD_FOR_GATEWAY = (
    _bad("/v1/recommend", '{"unit": "u"', 400),
    _bad("/v1/recommend", '{"unit": "u", "histroy": []}', 422),
    _bad("/v1/recommend", '{"unit": "u", "k": 1000000}', 422),
    _bad("/v1/similar", "\xff\xd8\xff", 415, "image/jpeg"),
    _bad("/v1/search", '{"unit": "u"}', 422),
    _bad("/v1/feedback", '{"event_id": "e", "event_type": "click", "item_id": "i"}', 422),
    _bad("/v1/items", '{"items": [{"id": "without a title"}]}', 422),
)
