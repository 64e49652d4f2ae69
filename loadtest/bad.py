"""Bad requests, each with the 4xx that it deserves (``docs/api.md``, errors)."""

from loadtest.rendered import Rendered
from loadtest.traffic import BAD

__all__ = ["BAD_FOR_ENCODER", "BAD_FOR_RECOMMENDER"]

_JSON = "application/json"
_TOO_MANY = ",".join(['{"title": "ring"}'] * 65)


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
